//! Migrations are embedded by a macro, which notices changed files and no new ones.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
