//! The tree as text, and what is common to reading it.

use proc_macro2::{TokenStream, TokenTree};
use std::{collections::BTreeMap, path::Path, process::Command};

/// Path from the top, `/` between its parts, to text.
pub struct Tree(BTreeMap<String, String>);

impl<const N: usize> From<[(&str, &str); N]> for Tree {
    fn from(files: [(&str, &str); N]) -> Self {
        Self(files.map(|(path, text)| (path.to_owned(), text.to_owned())).into())
    }
}

impl Tree {
    /// What git knows, or would with `git add`; files that are not text are left out.
    pub fn committed() -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = git.current_dir(top).output().expect("git lists the files");
        assert!(listed.status.success(), "git cannot list the files: {listed:?}");
        let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
        let texts = names.split_terminator('\0').filter_map(|path| {
            let text = std::fs::read_to_string(top.join(path)).ok()?;
            Some((path.to_owned(), text))
        });
        let tree = Self(texts.collect());
        assert!(tree.0.contains_key("src/lib.rs"), "the tree at {} is not Godwit's", top.display());
        tree
    }

    pub fn planted(path: &str, text: &str) -> Self {
        Self::from([(path, text)])
    }

    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The Rust files under `src/`.
    pub fn source(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rust().filter(|(path, _)| path.starts_with("src/"))
    }

    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| extension(path) == Some("rs"))
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }
}

pub fn extension(path: &str) -> Option<&str> {
    Path::new(path).extension()?.to_str()
}

pub fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path} does not parse: {error}"))
}

/// The room that a file under `src/` is in: the first part of its path, without `.rs`.
pub fn room(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The module that a file under `src/` is: `src/http/items/mod.rs` is `[http, items]`.
pub fn module(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    let root = matches!(inside, "lib" | "main");
    if root { Vec::new() } else { inside.split('/').map(str::to_owned).collect() }
}

/// The text of an identifier or punctuation; a group has none.
pub fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        TokenTree::Punct(punct) => Some(punct.as_char().to_string()),
        TokenTree::Group(_) | TokenTree::Literal(_) => None,
    }
}

/// Calls `see` with each run of neighbouring tokens, from the outermost group inwards, and the
/// position in that run.
pub fn each_token(tokens: TokenStream, see: &mut impl FnMut(&[TokenTree], usize)) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    for at in 0..tokens.len() {
        see(&tokens, at);
        if let TokenTree::Group(group) = &tokens[at] {
            each_token(group.stream(), see);
        }
    }
}
