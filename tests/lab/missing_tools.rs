//! The build script of this package. Two tests of step 10 need `openssl` and
//! `stunnel`, and those of several servers `nats-server`. Where one of these is
//! missing, `no_tls` or `no_nats` is set, and the tests are shown as ignored: a
//! test can't decide that when it runs.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(no_tls, no_nats)");
    println!("cargo::rerun-if-changed=tests/lab/missing_tools.rs");
    println!("cargo::rerun-if-env-changed=PATH");
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian has `nats-server` in a folder that only administrators look into.
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let has = |tool: &str| folders.iter().any(|folder| folder.join(tool).is_file());
    let (tls, nats) = (has("openssl") && has("stunnel"), has("nats-server"));
    for (is_missing, name) in [(!tls, "no_tls"), (!nats, "no_nats")] {
        if cfg!(not(unix)) || is_missing {
            println!("cargo::rustc-cfg={name}");
        }
    }
    if tls && nats {
        return;
    }
    // When a tool is installed, one of these folders changes.
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
}
