//! The migrations are embedded by a macro, which cargo does not see: a new file must rebuild.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
