//! The attributes of the worlds: what a component exports.
//!
//! The bindings are generated where the plugin is, because a crate can export only what it generates itself; types and host
//! functions in them are the SDK's. What stands between the two only renames: the work is in the SDK.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemImpl, Result, Type};

/// The interface, as the SDK that this was built with has it: three files of one package.
const WIT: [&str; 3] = [
    include_str!("../../../wit/types.wit"),
    include_str!("../../../wit/host.wit"),
    include_str!("../../../wit/worlds.wit"),
];

/// A world of the interface.
#[derive(Clone, Copy)]
pub(crate) enum World {
    Transform,
    Sample,
    Enrich,
    Decode,
    Encode,
}

impl World {
    fn name(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Sample => "sample",
            Self::Enrich => "enrich",
            Self::Decode => "decode",
            Self::Encode => "encode",
        }
    }

    /// The interfaces whose types and functions are the SDK's.
    fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Transform => &["types", "log", "metrics", "clock", "state", "lookup", "rest"],
            Self::Sample | Self::Decode => &["types", "log", "metrics", "clock", "state", "lookup"],
            Self::Enrich => &["types", "log", "metrics", "lookup"],
            Self::Encode => &["types", "log", "metrics", "lookup", "rest"],
        }
    }

    /// The fields declared to the host.
    fn fields(self, plugin: &Type) -> TokenStream {
        let row = match self {
            Self::Transform => quote!(<#plugin as ::millrace_plugin::Transform>::Row<'static>),
            Self::Sample => quote!(<#plugin as ::millrace_plugin::Sample>::Row<'static>),
            Self::Enrich => quote!(<#plugin as ::millrace_plugin::Enrich>::Row<'static>),
            Self::Decode => quote!(<#plugin as ::millrace_plugin::Decode>::Span),
            Self::Encode => quote!(<#plugin as ::millrace_plugin::Encode>::Row<'static>),
        };
        quote!(<#row as ::millrace_plugin::Fields>::FIELDS)
    }

    /// Refuses, in the compiler, fields that the world does not have.
    fn check(self, fields: &TokenStream) -> TokenStream {
        let sdk = quote!(::millrace_plugin::exports);
        match self {
            Self::Transform => quote!(#sdk::check(#fields, #sdk::transform::WRITABLE)),
            Self::Enrich => quote!(#sdk::check(#fields, &[])),
            Self::Decode => quote!(#sdk::check_written(#fields, #sdk::decode::WRITABLE)),
            Self::Sample | Self::Encode => quote!(#sdk::check_read(#fields)),
        }
    }

    /// The impl of the world's own interface, on `Guest`, over `SLOT`.
    fn work(self) -> TokenStream {
        let sdk = quote!(::millrace_plugin::exports);
        match self {
            Self::Transform => quote! {
                use exports::millrace::plugin::transformer;
                impl transformer::Guest for Guest {
                    fn transform(
                        signal: u8,
                        rows: u32,
                        groups: transformer::Groups,
                        columns: Vec<transformer::Column>,
                        all: &transformer::Batch,
                    ) -> Result<transformer::Patch, String> {
                        let given = #sdk::Given { signal: signal.into(), rows, groups, columns };
                        let all = #sdk::transform::All::host(all);
                        with(|plugin| #sdk::transform::run(plugin, &given, all))
                    }
                }
            },
            Self::Sample => quote! {
                use exports::millrace::plugin::sampler;
                impl sampler::Guest for Guest {
                    fn decide(
                        traces: u32,
                        is_final: bool,
                        columns: Vec<sampler::Column>,
                    ) -> Result<sampler::Verdicts, String> {
                        let decisions = with(|plugin| #sdk::sample::run(plugin, traces, is_final, &columns))?;
                        let (decisions, weights) = #sdk::sample::verdicts(&decisions);
                        Ok(sampler::Verdicts { decisions, weights })
                    }
                }
            },
            Self::Enrich => quote! {
                use exports::millrace::plugin::enricher;
                impl enricher::Guest for Guest {
                    fn enrich(
                        signal: u8,
                        rows: u32,
                        columns: Vec<enricher::Column>,
                    ) -> Result<enricher::Additions, String> {
                        let added = with(|plugin| #sdk::enrich::run(plugin, signal.into(), rows, &columns))?;
                        Ok(enricher::Additions { extra: added.extra, text: added.text, num: added.num })
                    }
                }
            },
            Self::Decode => decoder(&sdk),
            Self::Encode => quote! {
                use exports::millrace::plugin::encoder;
                impl encoder::Guest for Guest {
                    fn encode(
                        signal: u8,
                        rows: u32,
                        groups: encoder::Groups,
                        columns: Vec<encoder::Column>,
                        _all: &encoder::Batch,
                    ) -> Result<encoder::Encoded, String> {
                        let given = #sdk::Given { signal: signal.into(), rows, groups, columns };
                        let messages = with(|plugin| #sdk::encode::run(plugin, &given))?;
                        let (bytes, ends, rows, unencodable) = messages.into_parts();
                        let content_type = <Exported as ::millrace_plugin::Encode>::CONTENT_TYPE.to_owned();
                        Ok(encoder::Encoded { bytes, ends, rows, unencodable, content_type })
                    }
                }
            },
        }
    }
}

fn decoder(sdk: &TokenStream) -> TokenStream {
    quote! {
        use exports::millrace::plugin::decoder;
        impl decoder::Guest for Guest {
            fn opened(connection: u64, about: Vec<(String, String)>) -> Result<(), String> {
                with(|plugin| ::millrace_plugin::Decode::opened(plugin, connection, &about))
            }

            fn decode(connection: u64, chunk: Vec<u8>, last: bool) -> Result<decoder::Decoded, String> {
                let input = ::millrace_plugin::Input { connection, bytes: &chunk, is_last: last };
                let made = with(|plugin| #sdk::decode::run(plugin, &input))?;
                let rejected = made.rejected.into_iter();
                let rejected = rejected.map(|(first, end, reason)| decoder::Rejected { first, end, reason });
                Ok(decoder::Decoded {
                    consumed: made.consumed,
                    rows: made.rows,
                    extra: made.extra,
                    text: made.text,
                    num: made.num,
                    filtered: made.filtered,
                    rejected: rejected.collect(),
                    reply: made.reply,
                })
            }

            fn closed(connection: u64) {
                // Without an instance there is nothing that could care.
                let _ = with(|plugin| Ok(::millrace_plugin::Decode::closed(plugin, connection)));
            }
        }
    }
}

/// The impl as it was written, and for WebAssembly the exports of the world.
pub(crate) fn export(world: World, item: ItemImpl) -> Result<TokenStream> {
    if item.trait_.is_none() {
        return Err(Error::new_spanned(&item.self_ty, "this belongs on the impl of the world's trait"));
    }
    let plugin = &item.self_ty;
    let fields = world.fields(plugin);
    let check = world.check(&fields);
    let bindings = bindings(world);
    let lifecycle = lifecycle(&world.fields(&syn::parse_quote!(Exported)));
    let work = world.work();
    Ok(quote! {
        #item

        const _: () = #check;

        #[cfg(target_arch = "wasm32")]
        #[allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, reason = "generated code")]
        mod millrace_export {
            use super::*;
            #bindings
            type Exported = #plugin;
            struct Guest;
            ::std::thread_local! {
                static SLOT: ::millrace_plugin::exports::Slot<Exported> =
                    const { ::millrace_plugin::exports::Slot::empty() };
            }
            fn with<T>(call: impl FnOnce(&mut Exported) -> Result<T, String>) -> Result<T, String> {
                SLOT.with(|slot| slot.with(call))
            }
            #lifecycle
            #work
            export!(Guest);
        }
    })
}

fn bindings(world: World) -> TokenStream {
    // One file may say the name of the package once.
    let header = WIT[0].lines().next().unwrap_or_default();
    let wit = WIT.concat().replace(header, "");
    let wit = format!("{header}{wit}");
    let world_name = format!("millrace:plugin/{}", world.name());
    let version = header.trim_start_matches("package millrace:plugin@").trim_end_matches(';');
    let interfaces = world.imports().iter().map(|name| format!("millrace:plugin/{name}@{version}"));
    let modules = world.imports().iter().map(|name| quote::format_ident!("{name}"));
    quote! {
        ::millrace_plugin::wit_bindgen::generate!({
            inline: #wit,
            world: #world_name,
            with: { #(#interfaces: ::millrace_plugin::bindings::#modules),* },
            runtime_path: "::millrace_plugin::wit_bindgen::rt",
        });
    }
}

fn lifecycle(fields: &TokenStream) -> TokenStream {
    quote! {
        use exports::millrace::plugin::lifecycle;
        impl lifecycle::Guest for Guest {
            fn describe() -> lifecycle::Info {
                lifecycle::Info {
                    name: env!("CARGO_PKG_NAME").to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
                    config_schema: <Exported as ::millrace_plugin::Plugin>::CONFIG_SCHEMA.to_owned(),
                }
            }

            fn configure(config: String) -> Result<lifecycle::Setup, String> {
                SLOT.with(|slot| slot.configure(&config))?;
                let signals = <Exported as ::millrace_plugin::Plugin>::SIGNALS;
                Ok(lifecycle::Setup {
                    signals: signals.iter().map(|signal| *signal as u8).collect(),
                    fields: #fields.iter().map(::millrace_plugin::Field::declared).collect(),
                    max_rows: <Exported as ::millrace_plugin::Plugin>::MAX_ROWS,
                    fail_closed: <Exported as ::millrace_plugin::Plugin>::FAIL_CLOSED,
                    hints: Vec::new(),
                })
            }

            fn save() -> Vec<u8> {
                with(|plugin| Ok(::millrace_plugin::Plugin::save(plugin))).unwrap_or_default()
            }

            fn restore(saved: Vec<u8>) -> Result<(), String> {
                with(|plugin| ::millrace_plugin::Plugin::restore(plugin, &saved))
            }
        }
    }
}
