//! The attribute of simulated tests; `quorate_sim` says what it is for.

use proc_macro::TokenStream;
use quote::quote;
use syn::{ItemFn, LitInt, Path, parse_macro_input, parse_quote};

/// Makes a test of a function from a world to its outcome: it is run for many seeds, each in a process of its own.
///
/// `#[sim_test(seeds = 200)]` on `fn name(sim: Sim) -> Outcome`. `crate = some_path` names the simulator where it is not
/// `::quorate::sim`. A failure prints the seed and the one command that runs it again.
#[proc_macro_attribute]
pub fn sim_test(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let (mut seeds, mut simulator): (LitInt, Path) = (parse_quote!(100), parse_quote!(::quorate::sim));
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("seeds") {
            seeds = meta.value()?.parse()?;
            seeds.base10_parse::<u64>().map(|_| ())
        } else if meta.path.is_ident("crate") {
            simulator = meta.value()?.parse()?;
            Ok(())
        } else {
            Err(meta.error("a simulated test takes `seeds = N` and `crate = path`"))
        }
    });
    parse_macro_input!(arguments with parser);
    let function = parse_macro_input!(function as ItemFn);
    if let Some(asyncness) = function.sig.asyncness {
        let told = "a simulated test is not async itself: what it runs are the programs of its hosts";
        return syn::Error::new_spanned(asyncness, told).to_compile_error().into();
    }
    let (name, attributes) = (&function.sig.ident, &function.attrs);
    let inner = ItemFn { attrs: Vec::new(), ..function.clone() };
    quote! {
        #[test]
        #(#attributes)*
        fn #name() {
            #inner
            #simulator::testing::run(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)), #seeds, #name);
        }
    }
    .into()
}
