//! How long things are, and what tests may not do.

use crate::source::{Tree, each_token, extension, parse, word};
use proc_macro2::{Delimiter, Span, TokenTree};
use quote::ToTokens as _;
use syn::{spanned::Spanned as _, visit::Visit};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 90;

pub fn lengths(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files() {
        let lines = text.lines().count();
        let code = matches!(extension(path), None | Some("rs" | "py" | "sh" | "lua" | "mjs"));
        if code && !path.starts_with("LICENSE") && lines > FILE_LINES_MAX {
            complaints.push(format!("{path}: {lines} lines, more than {FILE_LINES_MAX}"));
        }
    }
    for (path, text) in tree.rust() {
        let mut functions = Functions(Vec::new());
        functions.visit_file(&parse(path, text));
        for (name, lines) in functions.0 {
            if lines > FUNCTION_LINES_MAX {
                complaints.push(format!(
                    "{path}: fn {name}: {lines} lines, more than {FUNCTION_LINES_MAX}"
                ));
            }
        }
    }
    complaints
}

/// Name and lines, from `fn` to the closing brace.
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn note(&mut self, signature: &syn::Signature, end: Span) {
        let lines = end.end().line - signature.span().start().line + 1;
        self.0.push((signature.ident.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig, function.block.span());
        syn::visit::visit_item_fn(self, function);
    }
    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig, function.block.span());
        syn::visit::visit_impl_item_fn(self, function);
    }
    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.note(&function.sig, function.span());
        syn::visit::visit_trait_item_fn(self, function);
    }
}

pub fn idle_tests(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| !path.starts_with("tests/tidy")) {
        let file = parse(path, text);
        if path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/") {
            complaints.extend(sleeps(path, file.to_token_stream()));
        } else {
            let mut tests = TestModules(path, Vec::new());
            tests.visit_file(&file);
            complaints.extend(tests.1);
        }
        each_token(file.to_token_stream(), &mut |tokens, at| {
            let TokenTree::Group(attribute) = &tokens[at] else { return };
            let hash = at > 0
                && attribute.delimiter() == Delimiter::Bracket
                && word(&tokens[at - 1]).as_deref() == Some("#");
            let first = attribute.stream().into_iter().next();
            if hash && first.as_ref().and_then(word).as_deref() == Some("ignore") {
                let line = attribute.span_open().start().line;
                complaints
                    .push(format!("{path}:{line}: an ignored test decides nothing: #[ignore]"));
            }
        });
    }
    complaints
}

/// The path, and the complaints about its `#[cfg(test)]` modules.
struct TestModules<'a>(&'a str, Vec<String>);

impl<'ast> Visit<'ast> for TestModules<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.to_token_stream().to_string().contains("test")
        };
        if module.attrs.iter().any(test) {
            self.1.extend(sleeps(self.0, module.to_token_stream()));
        } else {
            syn::visit::visit_item_mod(self, module);
        }
    }
}

fn sleeps(path: &str, tokens: proc_macro2::TokenStream) -> Vec<String> {
    let mut complaints = Vec::new();
    each_token(tokens, &mut |tokens, at| {
        let called = matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
        if called && word(&tokens[at]).as_deref() == Some("sleep") {
            let line = tokens[at].span().start().line;
            complaints
                .push(format!("{path}:{line}: a test waits for a condition, it does not sleep"));
        }
    });
    complaints
}
