//! Who may import what.

use crate::source::{Tree, module, parse, room, word};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use syn::visit::Visit;

/// The rooms of the house and what each may import: exhaustive, what a row omits is forbidden.
/// Each room may also import itself. `base` stands for [`BASE`].
const ROOMS: &[(&str, &str)] = &[
    ("main", "cli"),
    ("lib", ""),
    ("cli", "base assembly failover storage topology lab queue"),
    (
        "assembly",
        "base lifecycle storage loops topology routing identity domain queue changes failover http",
    ),
    ("lifecycle", "base"),
    ("lab", "base failover"),
    ("vocab", ""),
    ("config", "vocab"),
    ("telemetry", "vocab config"),
    ("storage", "base"),
    ("loops", "base lifecycle"),
    ("topology", "base storage loops"),
    ("routing", "base topology"),
    ("identity", "base storage"),
    ("domain", "base storage loops"),
    ("queue", "base storage loops topology routing"),
    ("changes", "base storage loops"),
    ("failover", "base storage loops topology"),
    ("http", "base lifecycle storage loops topology routing identity domain queue changes"),
];

const BASE: [&str; 3] = ["vocab", "config", "telemetry"];

/// What a room may import.
fn allowed(from: &str) -> BTreeSet<&'static str> {
    let row = ROOMS.iter().find(|(room, _)| *room == from).map_or("", |(_, row)| row);
    let words = row.split_whitespace();
    words.flat_map(|word| if word == "base" { BASE.to_vec() } else { vec![word] }).collect()
}

/// Crates that speak to the outside, and the only files or folders that may name them.
const DRIVERS: &[(&[&str], &[&str])] = &[
    (
        &[
            "actix_web",
            "actix_http",
            "actix_rt",
            "actix_server",
            "actix_service",
            "utoipa_swagger_ui",
        ],
        &["src/http/", "src/assembly"],
    ),
    (
        &["sqlx", "tokio_postgres", "tokio_postgres_rustls", "redis", "deadpool_redis"],
        // The laboratory makes the instances that storage then lives in.
        &["src/storage/", "src/lab/postgres"],
    ),
    (&["simple_dns"], &["src/lab/dns/question"]),
    (
        &["reqwest"],
        // The drill's client tells of every attempt and header what the operator's hides.
        &[
            "src/routing/forward",
            "src/topology/probe",
            "src/cli/client",
            "src/http/gate",
            "src/failover/drill/client",
            // What the exporter of traces sends them with.
            "src/telemetry/export",
        ],
    ),
];

/// The files of `http/` that may know where they run. A handler never asks: the gate has decided.
/// What tells people of the topology itself is in the list too.
const AWARE: &[&str] = &[
    "admin/regions",
    "app",
    "gate",
    "gauges",
    "headers",
    "health",
    "hold",
    "hop",
    "internal",
    "limits/tell",
    "people",
    "problem",
    "request",
    "routes",
    "server",
];

/// What `std::env` tells that is not a setting.
const PROCESS_FACTS: &[&str] =
    &["current_exe", "args", "args_os", "temp_dir", "current_dir", "consts", "split_paths"];

pub fn imports(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.source() {
        let from = room(path);
        let allowed = allowed(from);
        for to in references(path, text) {
            if to != from && !allowed.contains(to.as_str()) {
                complaints.push(format!("{path}: room `{from}` may not import `{to}`"));
            }
        }
    }
    complaints
}

pub fn handlers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.source() {
        let Some(inside) = path.strip_prefix("src/http/") else { continue };
        let name = inside.strip_suffix(".rs").unwrap_or(inside);
        let aware = |file: &&str| name == *file || name.starts_with(&format!("{file}/"));
        if AWARE.iter().any(aware) {
            continue;
        }
        for to in references(path, text) {
            if to == "topology" || to == "routing" {
                complaints.push(format!("{path}: a handler never asks where it runs: `{to}`"));
            }
        }
    }
    complaints
}

pub fn modules(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, _) in tree.source() {
        let name = room(path);
        if !ROOMS.iter().any(|(room, _)| *room == name) {
            complaints.push(format!("{path}: room `{name}` has no row in the table of rooms"));
        }
        let mut parts = module(path);
        let Some(leaf) = parts.pop() else { continue };
        let inside = parts.join("/");
        let parents = if parts.is_empty() {
            vec!["src/lib.rs".to_owned()]
        } else {
            vec![format!("src/{inside}/mod.rs"), format!("src/{inside}.rs")]
        };
        let declares = |parent: &String| {
            tree.text(parent).is_some_and(|text| declared(&parse(parent, text)).contains(&leaf))
        };
        if !parents.iter().any(declares) {
            complaints.push(format!("{path}: no `mod {leaf};` in {}", parents.join(" or ")));
        }
    }
    complaints
}

pub fn drivers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.source() {
        let file = parse(path, text);
        let mut own = Own(declared(&file));
        own.visit_file(&file);
        let named = foreign(tokens(path, text));
        for (crates, homes) in DRIVERS {
            let at_home = homes.iter().any(|home| path.starts_with(home));
            for name in crates.iter().filter(|name| !at_home && !own.0.contains(**name)) {
                if named.iter().any(|path| path[0] == **name) {
                    complaints.push(format!("{path}: `{name}` lives in {}", homes.join(", ")));
                }
            }
        }
        let settings = |path: &Vec<String>| {
            path.len() > 1
                && path[0] == "std"
                && path[1] == "env"
                && path.get(2).is_none_or(|leaf| !PROCESS_FACTS.contains(&leaf.as_str()))
        };
        if !path.starts_with("src/config/") && named.iter().any(settings) {
            complaints.push(format!("{path}: `std::env` is read in src/config/ alone"));
        }
    }
    complaints
}

fn tokens(path: &str, text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{path} does not parse: {error}"))
}

fn declared(file: &syn::File) -> BTreeSet<String> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// Names that are the file's own modules, or brought in from the crate itself.
struct Own(BTreeSet<String>);

impl<'ast> Visit<'ast> for Own {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let syn::UseTree::Path(path) = &item.tree else { return };
        if ["crate", "super", "self", "godwit"].iter().any(|root| path.ident == root) {
            leaves(&path.tree, &mut self.0);
        }
    }
}

fn leaves(tree: &syn::UseTree, into: &mut BTreeSet<String>) {
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, into),
        syn::UseTree::Name(name) => drop(into.insert(name.ident.to_string())),
        syn::UseTree::Rename(rename) => drop(into.insert(rename.rename.to_string())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, into)),
        syn::UseTree::Glob(_) => {}
    }
}

/// The rooms that a file names by `crate::`, `godwit::` or enough `super::`.
fn references(path: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut seen = |module: &[String], path: &[String]| {
        let mut at = module.to_vec();
        let mut rest = path.iter();
        match path[0].as_str() {
            "crate" | "godwit" => {
                at.clear();
                rest.next();
            }
            "super" | "self" => {}
            _ => return,
        }
        for part in rest {
            match part.as_str() {
                "super" => drop(at.pop()),
                "self" => {}
                _ => at.push(part.clone()),
            }
        }
        if let Some(room) = at.first() {
            found.insert(room.clone());
        }
    };
    walk(&module(path), tokens(path, text), &mut seen);
    found
}

fn foreign(tokens: TokenStream) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    walk(&[], tokens, &mut |_, path| {
        found.insert(path.to_vec());
    });
    found
}

/// Calls `see` with every path of the tokens, macros' included, and the module it stands in. The
/// braces of a `use` are taken apart.
fn walk(module: &[String], tokens: TokenStream, see: &mut impl FnMut(&[String], &[String])) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(ident) if ident == "use" => {
                at += 1;
                at = used(&tokens, at, &[], &mut |path| see(module, path));
            }
            TokenTree::Ident(ident) => {
                let inner = match tokens.get(at + 2) {
                    Some(TokenTree::Group(body)) if ident == "mod" => Some(body),
                    _ => None,
                };
                if let Some(body) = inner {
                    let mut inside = module.to_vec();
                    inside.extend(word(&tokens[at + 1]));
                    walk(&inside, body.stream(), see);
                    at += 3;
                } else {
                    // A lone word may be anything: a variable, a field.
                    let mut path = |path: &[String]| {
                        if path.len() > 1 {
                            see(module, path);
                        }
                    };
                    at = used(&tokens, at, &[], &mut path).max(at + 1);
                }
            }
            TokenTree::Group(group) => {
                walk(module, group.stream(), see);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Reads one path, or one tree of a `use`, from `at` on, behind `before`; returns where it ends.
fn used(
    tokens: &[TokenTree],
    mut at: usize,
    before: &[String],
    see: &mut impl FnMut(&[String]),
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(TokenTree::Punct(punct))
                if punct.as_char() == ':' && path.len() == before.len() =>
            {
                at += 1;
                continue;
            }
            Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' && !path.is_empty() => {
                path.push("*".to_owned());
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inside: Vec<_> = group.stream().into_iter().collect();
                for branch in inside.split(|token| word(token).as_deref() == Some(",")) {
                    used(branch, 0, &path, see);
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        let colons = [at, at + 1].map(|at| tokens.get(at).and_then(word));
        if colons.iter().any(|colon| colon.as_deref() != Some(":")) {
            break;
        }
        at += 2;
    }
    if path.len() > before.len() {
        see(&path);
    }
    at
}
