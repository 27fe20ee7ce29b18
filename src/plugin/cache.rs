//! Compiled plugins on disk, so that a start does not compile.
//!
//! Compiled code is trusted: whoever can write it runs as this process. So the cache is filled by `millrace plugin install`
//! alone, and read only if the directory and the file belong to its owner (root) and nobody else may write to them. A file is
//! named by the hash of the component and by that of everything that its code depends on: engine, version, settings and
//! processor. A file that is not there or does not fit is no error, the component is compiled instead.
//!
//! ```text
//! <sha256 of the component>-<16 hex digits>.cwasm = sha256 of the rest (32 bytes), serialized component
//! ```

#![allow(unsafe_code, reason = "compiled code can only be loaded on the word of whoever stored it")]

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use wasmtime::component::Component;

use crate::sys::digest::hex;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else could have written there.
    #[error("{}: is not used, for it belongs to user {uid} with mode {mode:04o}; it must belong to user {owner} and be \
        writable by nobody else", path.display())]
    NotPrivate {
        /// The directory or file.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Its permissions.
        mode: u32,
        /// Whose it must be.
        owner: u32,
    },
    /// The component does not compile.
    #[error("cannot be compiled: {0}")]
    Compile(String),
}

/// A directory of compiled components.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
    owner: u32,
}

impl Cache {
    /// The cache in this directory, of which `owner` (0: root) is the only one who writes there.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, owner: u32) -> Cache {
        Cache { directory: directory.into(), owner }
    }

    /// The cache of a component's file: the directory `compiled` beside it, root's.
    #[must_use]
    pub fn beside(component: &Path) -> Cache {
        Cache::new(component.with_file_name("compiled"), 0)
    }

    /// The compiled form of the component with this hash, if it is there and fits.
    pub(super) fn read(&self, engine: &wasmtime::Engine, sha256: &[u8; 32]) -> Result<Option<Component>, CacheError> {
        let path = self.path(engine, sha256);
        let mut file = match open(&self.directory).and_then(|directory| Ok((directory, open(&path)?))) {
            Ok((directory, file)) => {
                self.check(&self.directory, &directory)?;
                self.check(&path, &file)?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CacheError::Io { path, source }),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| CacheError::Io { path, source })?;
        let Some((sum, code)) = bytes.split_at_checked(SHA256_OUTPUT_LEN) else { return Ok(None) };
        if digest(&SHA256, code).as_ref() != sum {
            return Ok(None);
        }
        // SAFETY: the file and its directory belong to `owner` and are writable by nobody else (checked on the open files),
        // so `install` below wrote these bytes; they are whole, for their sum is right.
        Ok(unsafe { Component::deserialize(engine, code) }.ok())
    }

    /// Compiles a component and stores what comes out. The directory is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it does not compile, or the directory is not the owner's or cannot be written.
    pub(super) fn install(&self, engine: &wasmtime::Engine, component: &[u8]) -> Result<PathBuf, CacheError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CacheError::Io { path, source }
        };
        match fs::create_dir(&self.directory) {
            Ok(()) => {
                fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o755))
                    .map_err(failed(&self.directory))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&self.directory)(error)),
        }
        self.check(&self.directory, &open(&self.directory).map_err(failed(&self.directory))?)?;
        let code = engine.precompile_component(component).map_err(|error| CacheError::Compile(format!("{error:#}")))?;
        let path = self.path(engine, digest(&SHA256, component).as_ref());
        // Whole under its name or not there at all.
        let partial = path.with_extension("partial");
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&partial)?;
            file.write_all(digest(&SHA256, &code).as_ref())?;
            file.write_all(&code)?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        write().map_err(failed(&path))?;
        Ok(path)
    }

    fn path(&self, engine: &wasmtime::Engine, sha256: &[u8]) -> PathBuf {
        let mut key = Key(Context::new(&SHA256));
        engine.precompile_compatibility_hash().hash(&mut key);
        self.directory.join(format!("{}-{:016x}.cwasm", hex(sha256), key.finish()))
    }

    fn check(&self, path: &Path, file: &File) -> Result<(), CacheError> {
        let metadata = file.metadata().map_err(|source| CacheError::Io { path: path.to_owned(), source })?;
        let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        match uid == self.owner && mode & 0o022 == 0 {
            true => Ok(()),
            false => Err(CacheError::NotPrivate { path: path.to_owned(), uid, mode, owner: self.owner }),
        }
    }
}

/// Opens without following a link: what is checked is what is read.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

/// The compatibility of code as a number that is the same in every process: the standard hasher has a random key.
struct Key(Context);

impl Hasher for Key {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let sum = self.0.clone().finish();
        let first = sum.as_ref().first_chunk().expect("the digest has 32 bytes");
        u64::from_be_bytes(*first)
    }
}
