//! The description beside the program it describes.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Each operation of the document by method and path.
fn operations(document: &Value) -> BTreeMap<(String, String), &Value> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(|(method, operation)| ((method.to_uppercase(), path.clone()), operation))
    });
    operations.collect()
}

#[test]
fn it_describes_the_table_of_routes_and_the_paths_beside_it() {
    let document = document();
    let described: BTreeSet<_> = operations(&document).into_keys().collect();
    let table = ROUTES.iter().map(|route| (route.method.to_string(), route.path.to_owned()));
    let beside = probes::operations().map(|(path, _)| ("GET".to_owned(), path.to_owned()));
    assert_eq!(described, table.chain(beside).collect());
}

#[test]
fn scopes_and_intents_are_those_of_the_table() {
    let document = document();
    let operations = operations(&document);
    for route in &ROUTES {
        let operation = operations[&(route.method.to_string(), route.path.to_owned())];
        assert_eq!(operation["security"], security(route));
        let open = route.is_for_anyone();
        assert_eq!(operation["security"] == json!([]), open, "{}", route.path);
        assert_eq!(operation["x-godwit-intent"] == "write", route.is_write(), "{}", route.path);
        let takes_key = operation["parameters"].to_string().contains("/idempotency_key\"");
        assert_eq!(takes_key, route.is_write(), "{}", route.path);
    }
}

#[test]
fn every_parameter_of_a_path_is_described_and_no_other() {
    let document = document();
    for ((_, path), operation) in operations(&document) {
        let named: BTreeSet<_> =
            path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let described: BTreeSet<_> = parameters
            .map(|parameter| resolved(&document, parameter))
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(named, described, "{path}");
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(at) => document
            .pointer(at.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{at} is missing")),
        None => value,
    }
}

/// Calls `see` with every object of the document.
fn walk<'a>(value: &'a Value, see: &mut impl FnMut(&'a Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            see(members);
            members.values().for_each(|member| walk(member, see));
        }
        Value::Array(elements) => elements.iter().for_each(|element| walk(element, see)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = document();
    let mut used = BTreeSet::new();
    walk(&document, &mut |object| {
        if let Some(Value::String(at)) = object.get("$ref") {
            assert!(document.pointer(at.trim_start_matches('#')).is_some(), "{at} is missing");
            used.insert(at.clone());
        }
    });
    for of in ["schemas", "parameters", "headers", "responses"] {
        for name in document["components"][of].as_object().unwrap().keys() {
            assert!(used.contains(&format!("#/components/{of}/{name}")), "{of}/{name} is unused");
        }
    }
}

#[test]
fn links_lead_to_operations() {
    let document = document();
    let operations = operations(&document);
    let ids: Vec<_> = operations.values().map(|op| op["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    walk(&document["paths"], &mut |object| {
        for link in object.get("links").and_then(Value::as_object).into_iter().flatten() {
            assert!(ids.contains(&link.1["operationId"].as_str().unwrap()), "{link:?}");
        }
    });
}

/// Kinds that no operation can be refused with: what is not a path or method of ours has none, and
/// what is not from a region of ours is refused by the internal listener.
const OF_NO_OPERATION: [Kind; 2] = [Kind::MethodNotAllowed, Kind::Untrusted];

#[test]
fn every_kind_of_problem_is_described_where_it_can_happen() {
    let document = document();
    let types = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].clone();
    let responses = document["components"]["responses"].as_object().unwrap();
    for kind in Kind::ALL {
        let urn = json!(format!("urn:godwit:problem:{}", kind.name()));
        assert!(types.as_array().unwrap().contains(&urn), "{urn}");
        let within = responses.values().filter(|response| {
            let content = &response["content"]["application/problem+json"]["schema"]["allOf"][1];
            let types = content["properties"]["type"]["enum"].as_array().unwrap();
            let status = &content["properties"]["status"]["const"];
            types.contains(&urn) && *status == json!(kind.status().as_u16())
        });
        assert_eq!(within.count() > 0, !OF_NO_OPERATION.contains(&kind), "{urn}");
    }
}

#[test]
fn every_refusal_is_a_problem_document() {
    let document = document();
    for ((method, path), operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = &resolved(&document, response)["content"];
            let health = operation["tags"] == json!(["health"]);
            if status.parse::<u16>().unwrap() >= 400 && !health {
                let content = content.as_object().unwrap();
                assert!(content.contains_key("application/problem+json"), "{method} {path}");
            }
        }
    }
}

#[test]
fn the_printed_description_is_the_committed_one() {
    let committed = include_str!("../../../docs/openapi.json");
    assert!(
        committed == printed(),
        "run `godwit openapi > docs/openapi.json`, then look at the diff"
    );
}
