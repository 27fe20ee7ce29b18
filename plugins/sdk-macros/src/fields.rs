//! `#[derive(Fields)]`.
//!
//! The list of fields and the code that opens them are written from the same struct, in its order. Kind and access come
//! from the types of the fields, so this only reads levels and keys.

use proc_macro2::{Literal, Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Data, DeriveInput, Error, Field, Ident, Lifetime, LitStr, Result, Token, Type};

/// `"key"` or `level, "key"`.
struct Place {
    level: Ident,
    key: LitStr,
}

impl Parse for Place {
    fn parse(input: ParseStream) -> Result<Self> {
        let level = match input.peek(LitStr) {
            true => Ident::new("record", input.span()),
            false => {
                let level = input.parse()?;
                input.parse::<Token![,]>()?;
                level
            }
        };
        Ok(Self { level, key: input.parse()? })
    }
}

/// What to write instead.
fn form(error: &Error) -> String {
    format!("{error}: write #[field(\"key\")], or #[field(intrinsic, \"key\")] where the level is not record")
}

/// One field of the struct.
struct Entry {
    name: Ident,
    kind: Type,
    level: Level,
    key: LitStr,
}

#[derive(Clone, Copy)]
enum Level {
    Record,
    Resource,
    Scope,
    Intrinsic,
}

impl Entry {
    fn read(field: &Field) -> Result<Self> {
        let name = field.ident.clone().ok_or_else(|| Error::new_spanned(field, "fields need names"))?;
        let Some(attribute) = field.attrs.iter().find(|attribute| attribute.path().is_ident("field")) else {
            return Err(Error::new_spanned(field, "which field is this? #[field(\"key\")] says it"));
        };
        let Place { level, key } = attribute.parse_args().map_err(|error| Error::new(error.span(), form(&error)))?;
        let level = match level.to_string().as_str() {
            "record" => Level::Record,
            "resource" => Level::Resource,
            "scope" => Level::Scope,
            "intrinsic" => Level::Intrinsic,
            other => {
                let message = format!("there is no level {other}; there are record, resource, scope and intrinsic");
                return Err(Error::new(level.span(), message));
            }
        };
        Ok(Self { name, kind: field.ty.clone(), level, key })
    }

    fn declaration(&self, lifetime: &Lifetime) -> TokenStream {
        let Self { kind, key, .. } = self;
        let level = match self.level {
            Level::Record => quote!(Record),
            Level::Resource => quote!(Resource),
            Level::Scope => quote!(Scope),
            Level::Intrinsic => quote!(Intrinsic),
        };
        quote! {
            ::millrace_plugin::Field {
                level: ::millrace_plugin::Level::#level,
                key: #key,
                kind: <#kind as ::millrace_plugin::Cell<#lifetime>>::KIND,
                read: <#kind as ::millrace_plugin::Cell<#lifetime>>::READ,
                write: <#kind as ::millrace_plugin::Cell<#lifetime>>::WRITE,
            }
        }
    }

    fn open(&self, lifetime: &Lifetime) -> TokenStream {
        let Self { name, kind, key, .. } = self;
        quote! {
            #name: match <#kind as ::millrace_plugin::Cell<#lifetime>>::READ {
                true => match columns.next() {
                    ::core::option::Option::Some(column) => ::millrace_plugin::Cell::open(::core::option::Option::Some(column))?,
                    ::core::option::Option::None => {
                        return ::core::result::Result::Err(::std::format!("there is no column for {}", #key));
                    }
                },
                false => ::millrace_plugin::Cell::open(::core::option::Option::None)?,
            }
        }
    }

    fn seek(&self) -> TokenStream {
        let name = &self.name;
        match self.level {
            Level::Record | Level::Intrinsic => quote!(::millrace_plugin::Cell::seek(&mut self.#name, at.row, at.row);),
            Level::Resource => quote! {
                if at.begins_resource {
                    ::millrace_plugin::Cell::seek(&mut self.#name, at.resource, at.row);
                }
            },
            Level::Scope => quote! {
                if at.begins_scope {
                    ::millrace_plugin::Cell::seek(&mut self.#name, at.scope, at.row);
                }
            },
        }
    }
}

/// The impl for a struct with named fields, and at most one lifetime.
pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "the fields of a row are a struct"));
    };
    let entries = data.fields.iter().map(Entry::read).collect::<Result<Vec<_>>>()?;
    let own = input.generics.lifetimes().next().map(|parameter| parameter.lifetime.clone());
    let lifetime = own.unwrap_or_else(|| Lifetime::new("'static", Span::call_site()));
    let declarations = entries.iter().map(|entry| entry.declaration(&lifetime));
    let opens = entries.iter().map(|entry| entry.open(&lifetime));
    let seeks = entries.iter().map(Entry::seek);
    let names: Vec<&Ident> = entries.iter().map(|entry| &entry.name).collect();
    let numbers = (0..entries.len()).map(|number| Literal::u16_suffixed(u16::try_from(number).unwrap_or(u16::MAX)));
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        impl #generics ::millrace_plugin::Fields<#lifetime> for #name #arguments #bounds {
            const FIELDS: &'static [::millrace_plugin::Field] = &[#(#declarations),*];

            fn open(
                columns: &mut ::core::slice::Iter<#lifetime, ::millrace_plugin::bindings::types::Column>,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                ::core::result::Result::Ok(Self { #(#opens),* })
            }

            #[inline(always)]
            fn seek(&mut self, at: &::millrace_plugin::At) {
                #(#seeks)*
            }

            fn forget(&mut self) {
                #(::millrace_plugin::Cell::forget(&mut self.#names);)*
            }

            fn finish(self, edits: &mut ::millrace_plugin::Edits) {
                #(::millrace_plugin::Cell::finish(self.#names, #numbers, edits);)*
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_written_otherwise_is_told_how() {
        let derived = |field: &str| {
            let text = format!("struct Row<'b> {{ {field} name: Text<'b>, }}");
            derive(syn::parse_str(&text).unwrap()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(derived("#[field(intrinsic, \"name\")]"), Ok(()));
        for field in
            ["#[field(\"name\", intrinsic)]", "#[field(key = \"name\")]", "#[field(name)]", "#[field()]", "#[field]"]
        {
            let error = derived(field).unwrap_err();
            assert!(error.contains("#[field(intrinsic, \"key\")]"), "{field}: {error}");
        }
        assert!(derived("").unwrap_err().contains("#[field(\"key\")] says it"));
    }
}
