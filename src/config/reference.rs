//! The reference of all settings, made from the structs, their comments and their defaults, and
//! compared with the committed one.

use super::{testing::MINIMAL, *};
use serde_json::Value;
use std::{fmt::Write as _, fs};
use syn::{Expr, ExprLit, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};

const HEAD: &str = "# Settings

Made from `src/config/`, whose comments and defaults these are; a test holds it to them. A setting is read from the file
of `--config` (TOML, sections as named here), over which goes `GODWIT__SECTION__KEY` from the environment, or the text of
the file that `GODWIT__SECTION__KEY_FILE` names. A list there has commas between its entries. `godwit doctor` prints what
the settings of a process come to.

| setting | default | |
|---|---|---|
";

struct Field {
    name: String,
    /// The type and what it is made of, outermost first.
    types: Vec<String>,
    comment: String,
}

/// The fields of every struct of this room, by the struct's name.
fn structs() -> BTreeMap<String, Vec<Field>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let mut structs = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for item in syn::parse_file(&text).unwrap().items {
            let Item::Struct(item) = item else { continue };
            let Fields::Named(fields) = item.fields else { continue };
            let read = fields.named.iter().filter(|field| !is_skipped(&field.attrs));
            let fields = read.map(|field| Field {
                name: field.ident.as_ref().unwrap().to_string(),
                types: types(&field.ty),
                comment: comment(&field.attrs),
            });
            structs.insert(item.ident.to_string(), fields.collect());
        }
    }
    structs
}

/// Set by us, not by settings.
fn is_skipped(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("serde") => list.tokens.to_string() == "skip",
        _ => false,
    })
}

fn types(of: &Type) -> Vec<String> {
    let Type::Path(path) = of else { return Vec::new() };
    let last = path.path.segments.last().unwrap();
    let mut all = vec![last.ident.to_string()];
    if let PathArguments::AngleBracketed(inner) = &last.arguments {
        all.extend(inner.args.iter().flat_map(|inner| match inner {
            GenericArgument::Type(inner) => types(inner),
            _ => Vec::new(),
        }));
    }
    all
}

fn comment(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A line for each setting below `of`, which stands at `at` and whose defaults are in `defaults`;
/// what is in `given` has none.
fn lines(
    structs: &BTreeMap<String, Vec<Field>>,
    of: &str,
    at: &str,
    defaults: &Value,
    given: &Value,
) -> String {
    let mut text = String::new();
    for Field { name, types, comment } in &structs[of] {
        let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        if let Some(inner) = types.iter().find(|name| structs.contains_key(*name)) {
            let map = types[0] == "BTreeMap";
            let key = if map { format!("{key}.NAME") } else { key };
            if !comment.is_empty() {
                let _ = writeln!(text, "| `[{key}]` | | {comment} |");
            }
            let (defaults, given) =
                if map { (&Value::Null, &Value::Null) } else { (&defaults[name], &given[name]) };
            text.push_str(&lines(structs, inner, &key, defaults, given));
            continue;
        }
        let default = match &defaults[name] {
            _ if given.get(name).is_some() => "required".to_owned(),
            Value::Null if types[0] == "Option" => "none".to_owned(),
            Value::Null => "required".to_owned(),
            value => format!("`{value}`"),
        };
        let _ = writeln!(text, "| `{key}` | {default} | {comment} |");
    }
    text
}

#[test]
fn the_committed_reference_is_that_of_the_code() {
    let parsed = config::File::from_str(MINIMAL, config::FileFormat::Toml);
    let parsed = config::Config::builder().add_source(parsed).build().unwrap();
    let given: Value = parsed.clone().try_deserialize().unwrap();
    let defaults = parsed.try_deserialize::<Config>().unwrap();
    let defaults = serde_json::to_value(defaults).unwrap();
    let fresh = format!("{HEAD}{}", lines(&structs(), "Config", "", &defaults, &given));
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = fs::read_to_string(top.join("docs/SETTINGS.md")).unwrap_or_default();
    if committed != fresh {
        let kept = top.join("target/SETTINGS.md");
        fs::write(&kept, fresh).unwrap();
        panic!("`cp target/SETTINGS.md docs/SETTINGS.md`, then look at the diff");
    }
}
