//! The macros of `millrace-plugin`, which documents them: the attributes of the worlds, `Fields` and `Plugin`.
//!
//! An attribute leaves the impl as it is and adds, for WebAssembly only, the functions that the component exports: bindings
//! generated from the same `wit/` as the SDK's, and an instance behind them. Natively it adds nothing.

mod fields;
mod plugin;
mod world;

use proc_macro::TokenStream;

/// Implements `Fields`: `#[field("key")]`, `#[field(resource, "key")]`, `scope`, `intrinsic`.
#[proc_macro_derive(Fields, attributes(field))]
pub fn derive_fields(input: TokenStream) -> TokenStream {
    done(syn::parse(input).and_then(fields::derive))
}

/// Implements `Plugin` for a struct that is its own configuration, or that has none.
#[proc_macro_derive(Plugin, attributes(plugin))]
pub fn derive_plugin(input: TokenStream) -> TokenStream {
    done(syn::parse(input).and_then(plugin::derive))
}

/// Exports a `Transform`.
#[proc_macro_attribute]
pub fn transform(_: TokenStream, item: TokenStream) -> TokenStream {
    done(syn::parse(item).and_then(|item| world::export(world::World::Transform, item)))
}

/// Exports a `Sample`.
#[proc_macro_attribute]
pub fn sample(_: TokenStream, item: TokenStream) -> TokenStream {
    done(syn::parse(item).and_then(|item| world::export(world::World::Sample, item)))
}

/// Exports an `Enrich`.
#[proc_macro_attribute]
pub fn enrich(_: TokenStream, item: TokenStream) -> TokenStream {
    done(syn::parse(item).and_then(|item| world::export(world::World::Enrich, item)))
}

/// Exports a `Decode`.
#[proc_macro_attribute]
pub fn decode(_: TokenStream, item: TokenStream) -> TokenStream {
    done(syn::parse(item).and_then(|item| world::export(world::World::Decode, item)))
}

/// Exports an `Encode`.
#[proc_macro_attribute]
pub fn encode(_: TokenStream, item: TokenStream) -> TokenStream {
    done(syn::parse(item).and_then(|item| world::export(world::World::Encode, item)))
}

fn done(made: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    made.unwrap_or_else(syn::Error::into_compile_error).into()
}
