//! The cache of compiled plugins: used when it is the owner's alone, whole and of this engine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::plugin::cache::Cache;
use crate::plugin::load::{Source, install};

#[test]
fn code_is_read_from_the_cache_if_nobody_else_could_write_it() {
    let bench = Bench::new();
    let plugin = bench.plugin(&echo());
    let owner = fs::metadata(bench.directory.path()).unwrap().uid();
    let directory = bench.directory.path().join("cache");
    let cache = Cache::new(&directory, owner);
    let source = Source::read(&plugin.component.path).unwrap();
    let engine = bench.engine.of(PluginClass::Light);
    let is_there = |cache: &Cache| cache.read(engine, &source.sha256).map(|component| component.is_some());
    assert!(!is_there(&cache).unwrap());
    let stored = install(&bench.engine, PluginClass::Light, &source, &cache).unwrap();
    assert!(is_there(&cache).unwrap());

    let package = load::load_source(&bench.engine, &plugin, &plugin.component, &source, Some(&cache)).unwrap();
    let generation = Generation::new(package, &plugin, &plugin.component, 1).unwrap();
    assert_eq!(call(&mut Instance::new(Arc::new(generation), Arc::default()), 3), Ok(echoed()));

    assert!(is_there(&Cache::new(&directory, owner + 1)).is_err(), "another owner");
    for path in [&directory, &stored] {
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(is_there(&cache).is_err(), "anybody may write to {}", path.display());
        // Not trusted is not fatal.
        assert!(load::load_source(&bench.engine, &plugin, &plugin.component, &source, Some(&cache)).is_ok());
        fs::set_permissions(path, mode).unwrap();
    }
    let whole = fs::read(&stored).unwrap();
    for at in [0, 31, 32, whole.len() / 2, whole.len() - 1] {
        let mut broken = whole.clone();
        broken[at] ^= 1;
        fs::write(&stored, broken).unwrap();
        assert!(!is_there(&cache).unwrap(), "a bit at {at}");
    }
    fs::write(&stored, &whole[..20]).unwrap();
    assert!(!is_there(&cache).unwrap());
    let elsewhere = bench.directory.path().join("elsewhere");
    fs::write(&elsewhere, &whole).unwrap();
    fs::remove_file(&stored).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &stored).unwrap();
    assert!(is_there(&cache).is_err(), "links are not followed");
}
