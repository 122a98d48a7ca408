//! The laws of the house that the compiler does not know, each with a planted mistake that it must
//! find. A law takes the tree as text and returns complaints, one line each.

#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/words.rs"]
mod words;

use source::Tree;

type Law = fn(&Tree) -> Vec<String>;

fn keep(law: Law) {
    let complaints = law(&Tree::committed());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// `law` must find nothing in `sound` and complain of `mistake` with `word`, both at `path`.
fn catches(law: Law, path: &str, sound: &str, mistake: &str, word: &str) {
    let complaints = law(&Tree::planted(path, sound));
    assert!(complaints.is_empty(), "sound, but: {complaints:?}");
    let complaints = law(&Tree::planted(path, mistake));
    assert!(
        complaints.iter().any(|complaint| complaint.contains(word) && complaint.contains(path)),
        "the mistake {mistake:?} in {path} goes unnoticed: {complaints:?}"
    );
}

#[test]
fn rooms_import_only_what_their_row_allows() {
    keep(rooms::imports);
}

#[test]
fn a_stray_import_is_found_however_it_is_written() {
    let sound = "use crate::{vocab::Lsn, config};";
    for mistake in [
        "use crate::http::Caller;",
        "use crate::{vocab::Lsn, http::{self, gate}};",
        "fn f() { crate::http::serve() }",
        "fn f() { println!(\"{}\", crate::http::NAME) }",
        "macro_rules! m { () => { $crate::http::serve() } }",
        "use super::super::http::Caller;",
        "mod tests { use super::super::super::http::Caller; }",
        "use crate::*;",
        "pub(in crate::http) struct S;",
    ] {
        let word = if mistake.contains('*') { "*" } else { "http" };
        catches(rooms::imports, "src/storage/items.rs", sound, mistake, word);
    }
    catches(rooms::imports, "src/main.rs", "use godwit::cli;", "use godwit::http;", "http");
    catches(
        rooms::imports,
        "src/vocab/ids.rs",
        "use super::Rng;",
        "use crate::config::C;",
        "config",
    );
    catches(rooms::imports, "src/http/server.rs", "use crate::domain;", "use crate::lab;", "lab");
}

#[test]
fn handlers_do_not_ask_where_they_run() {
    keep(rooms::handlers);
}

#[test]
fn a_handler_that_asks_where_it_runs_is_found() {
    let mistake = "fn f(topology: &crate::topology::Topology) {}";
    catches(rooms::handlers, "src/http/items/one.rs", "use crate::domain;", mistake, "topology");
    catches(rooms::handlers, "src/http/writes.rs", "", "use crate::routing::decide;", "routing");
    assert!(rooms::handlers(&Tree::planted("src/http/gate.rs", mistake)).is_empty());
}

#[test]
fn every_module_is_declared_and_has_a_row() {
    keep(rooms::modules);
}

#[test]
fn an_undeclared_module_is_found() {
    let tree = |lib: &str, path: &str| {
        Tree::from([("src/lib.rs", lib), ("src/storage/mod.rs", "mod items;"), (path, "")])
    };
    assert!(rooms::modules(&tree("pub mod storage;", "src/storage/items.rs")).is_empty());
    for (lib, path, word) in [
        ("pub mod storage;", "src/storage/forgotten.rs", "src/storage/forgotten.rs"),
        ("", "src/storage/items.rs", "src/storage/mod.rs"),
        ("pub mod storage; pub mod attic;", "src/attic.rs", "attic"),
        ("pub mod storage;", "src/storage/deep/er.rs", "src/storage/deep/er.rs"),
    ] {
        let complaints = rooms::modules(&tree(lib, path));
        assert!(complaints.iter().any(|c| c.contains(word)), "{lib} {path}: {complaints:?}");
    }
}

#[test]
fn drivers_stay_home() {
    keep(rooms::drivers);
}

#[test]
fn a_driver_away_from_home_is_found() {
    for (path, sound, mistake, word) in [
        ("src/domain/items.rs", "use crate::storage;", "use sqlx::PgPool;", "sqlx"),
        ("src/domain/items.rs", "fn f() {}", "#[sqlx::test] fn f() {}", "sqlx"),
        (
            "src/identity/key.rs",
            "use serde::Serialize;",
            "use {actix_web::web, uuid};",
            "actix_web",
        ),
        ("src/identity/key.rs", "", "fn f() { assert!(redis::cmd(\"GET\")) }", "redis"),
        ("src/routing/decide.rs", "", "fn f(c: reqwest::Client) {}", "reqwest"),
        ("src/topology/mod.rs", "", "use tokio_postgres as pg;", "tokio_postgres"),
        ("src/cli/serve.rs", "use std::env::current_exe;", "use std::env;", "std::env"),
        ("src/cli/serve.rs", "", "fn f() { std::env::var(\"A\"); }", "std::env"),
        ("src/cli/serve.rs", "", "use std::{env::{self, args}, fmt};", "std::env"),
    ] {
        catches(rooms::drivers, path, sound, mistake, word);
    }
    let own_module = "mod redis; pub use redis::RedisConfig; fn f(redis: R) { redis.x() }";
    let own_module = Tree::planted("src/config/mod.rs", own_module);
    assert!(rooms::drivers(&own_module).is_empty());
}

#[test]
fn names_and_prose_avoid_the_banned_words() {
    keep(words::banned);
}

#[test]
fn a_banned_word_is_found() {
    let rust = "src/vocab/ids.rs";
    for (path, mistake, word) in [
        (rust, "// TODO later", "todo"),
        (rust, "fn f() { todo!() }", "todo"),
        (rust, "struct KeyManager;", "manager"),
        (rust, "fn key_manager_new() {}", "manager"),
        (rust, "/// Asks the master.\nfn f() {}", "master"),
        (rust, "struct SyncService;", "service"),
        ("src/vocab/utils.rs", "", "utils"),
        ("docs/ARCHITECTURE.md", "The slave follows.", "slave"),
        ("migrations/global/1_a.sql", "-- FIXME", "fixme"),
        ("tests/with-postgres", "# master", "master"),
    ] {
        let sound = if path == "src/vocab/utils.rs" { None } else { Some("/* mastery */") };
        if let Some(sound) = sound {
            catches(words::banned, path, sound, mistake, word);
        } else {
            assert!(!words::banned(&Tree::planted(path, mistake)).is_empty());
        }
    }
}

#[test]
fn no_file_names_a_machine() {
    keep(words::machine);
}

#[test]
fn a_machine_path_or_registry_host_is_found() {
    for (mistake, word) in [
        (concat!("cd /wo", "rk/x"), "path"),
        (concat!("include = \"/ro", "ot/.cargo\""), "path"),
        (concat!("=/ho", "me/me/x"), "path"),
        (concat!("pip install -i https://py", "pi.org/simple x"), "registry"),
    ] {
        catches(words::machine, "Makefile", "all: ../work/x https://docs.rs/", mistake, word);
    }
}

#[test]
fn files_and_functions_stay_short() {
    keep(shape::lengths);
}

#[test]
fn a_long_file_or_function_is_found() {
    let path = "src/vocab/ids.rs";
    catches(shape::lengths, path, &"\n".repeat(600), &"\n".repeat(601), "601 lines");
    let function = |lines: usize| format!("impl A {{ fn f() {{{}}} }}", "\n".repeat(lines - 1));
    catches(shape::lengths, path, &function(90), &function(91), "fn f: 91 lines");
    let nested = format!("mod a {{ fn g() {{{}}} }}", "\n".repeat(90));
    catches(shape::lengths, path, "", &nested, "fn g: 91 lines");
}

#[test]
fn tests_neither_sleep_nor_are_ignored() {
    keep(shape::idle_tests);
}

#[test]
fn a_sleeping_or_ignored_test_is_found() {
    let source = "src/loops/driver.rs";
    let it = "tests/it/main.rs";
    let in_module = "#[cfg(test)] mod tests { fn f() { std::thread::sleep(d) } }";
    catches(shape::idle_tests, source, "async fn f() { sleep(d).await }", in_module, "sleep");
    let in_macro = "fn f() { tokio::select! { () = tokio::time::sleep(d) => {} } }";
    catches(shape::idle_tests, it, "fn f() { interval(d) }", in_macro, "sleep");
    catches(shape::idle_tests, it, "#[test] fn f() {}", "#[test] #[ignore] fn f() {}", "ignore");
    let reasoned = "mod a { #[test] #[ignore = \"slow\"] fn f() {} }";
    catches(shape::idle_tests, source, "#[test] fn f() {}", reasoned, "ignore");
}

#[test]
fn no_migration_makes_or_uses_a_sequence() {
    keep(words::sequences);
    let sound = "-- Not a sequence.\nCREATE TABLE t (id uuid, serials text);";
    for mistake in [
        "CREATE TABLE t (id bigserial)",
        "CREATE TABLE t (id SERIAL8)",
        "CREATE TABLE t (id int GENERATED BY DEFAULT AS\n IDENTITY)",
        "ALTER TABLE t ALTER id SET DEFAULT nextval('n')",
        "CREATE SEQUENCE n",
    ] {
        catches(words::sequences, "migrations/global/1_make.sql", sound, mistake, "sequence");
    }
}
