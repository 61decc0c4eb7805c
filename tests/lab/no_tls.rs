//! The build script of this package. Two tests of step 10 need `openssl` and
//! `stunnel`. Where one of these is missing, `no_tls` is set, and the tests are
//! shown as ignored: a test can't decide that when it runs.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(no_tls)");
    println!("cargo::rerun-if-changed=tests/lab/no_tls.rs");
    println!("cargo::rerun-if-env-changed=PATH");
    let folders: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let has = |tool: &str| folders.iter().any(|folder| folder.join(tool).is_file());
    if cfg!(unix) && has("openssl") && has("stunnel") {
        return;
    }
    println!("cargo::rustc-cfg=no_tls");
    // When a tool is installed, one of these folders changes.
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
}
