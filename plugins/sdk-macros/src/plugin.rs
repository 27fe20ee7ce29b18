//! `#[derive(Plugin)]`.
//!
//! A struct with fields is its own configuration and so must be `Deserialize`; one without has none, and refuses any.
//! `#[plugin(signals(span, log), max_rows = 512, fail_closed)]` says what the plugin is given.

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Data, DeriveInput, Error, Ident, LitInt, Result, parenthesized};

#[derive(Default)]
struct Given {
    signals: Vec<TokenStream>,
    max_rows: Option<LitInt>,
    is_fail_closed: bool,
}

impl Given {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("max_rows") {
            self.max_rows = Some(meta.value()?.parse()?);
            return Ok(());
        }
        if meta.path.is_ident("fail_closed") {
            self.is_fail_closed = true;
            return Ok(());
        }
        if !meta.path.is_ident("signals") {
            return Err(meta.error("there are signals(span, log), max_rows = 512 and fail_closed"));
        }
        let list;
        parenthesized!(list in meta.input);
        for signal in list.parse_terminated(<Ident as syn::ext::IdentExt>::parse_any, syn::Token![,])? {
            self.signals.push(match signal.to_string().as_str() {
                "span" => quote!(::millrace_plugin::Signal::Span),
                "log" => quote!(::millrace_plugin::Signal::Log),
                other => {
                    return Err(Error::new(
                        signal.span(),
                        format!("there is no signal {other}; there are span and log"),
                    ));
                }
            });
        }
        Ok(())
    }
}

/// The impl for a struct.
pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a plugin is a struct; implement Plugin for anything else"));
    };
    let mut given = Given::default();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("plugin")) {
        attribute.parse_nested_meta(|meta| given.read(&meta))?;
    }
    let signals = match &given.signals[..] {
        [] => None,
        signals => Some(quote!(const SIGNALS: &'static [::millrace_plugin::Signal] = &[#(#signals),*];)),
    };
    let max_rows = given.max_rows.map(|rows| quote!(const MAX_ROWS: u32 = #rows;));
    let (config, made) = match data.fields.is_empty() {
        true => (quote!(::millrace_plugin::NoConfig), quote!(Self {})),
        false => (quote!(Self), quote!(config)),
    };
    let is_fail_closed = given.is_fail_closed;
    let name = &input.ident;
    Ok(quote! {
        impl ::millrace_plugin::Plugin for #name {
            type Config = #config;
            #signals
            #max_rows
            const FAIL_CLOSED: bool = #is_fail_closed;

            fn new(config: Self::Config) -> ::core::result::Result<Self, ::std::string::String> {
                let _ = &config;
                ::core::result::Result::Ok(#made)
            }
        }
    })
}
