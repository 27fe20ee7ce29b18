//! A disk in memory with exactly the faults that matter to a log.
//!
//! It keeps what is written (live) apart from what would survive (durable). Between two syncs the kernel writes pages of
//! 4096 bytes or sectors of less back in any order, at any moment, and not at all: every write may let some dirty sectors
//! through, and a power cut keeps a random subset of the rest. Names are a journal: a power cut keeps a prefix of the
//! operations that no directory sync covers. A failed sync drops the dirty sectors for good while the live bytes go on
//! showing them, as kernels do. The fuse cuts the power after a number of operations; everything after fails. One seed
//! decides it all.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::queue::{Storage, StoredFile};

/// What is written whole or not at all: the page of a cache, the sector of a disk; less when the kernel copies a page that
/// is being stored to.
const SECTOR_BYTES: [usize; 4] = [4096, 512, 64, 16];

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: Sectors,
    sector_bytes: usize,
}

/// Numbers of sectors, as bits: a write of a kilobyte may dirty 64 of them.
#[derive(Clone, Debug, Default)]
struct Sectors(Vec<u64>);

impl Sectors {
    fn insert(&mut self, sectors: RangeInclusive<usize>) {
        let words = sectors.end() / 64 + 1;
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        sectors.for_each(|sector| self.0[sector / 64] |= 1 << (sector % 64));
    }

    fn contains(&self, sector: usize) -> bool {
        self.0.get(sector / 64).is_some_and(|word| word >> (sector % 64) & 1 == 1)
    }

    /// Ascending.
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.0.iter().enumerate();
        words.flat_map(|(word, bits)| {
            let some = |bits: u64| Some(bits).filter(|bits| *bits != 0);
            let rests = std::iter::successors(some(*bits), move |bits| some(bits & (bits - 1)));
            rests.map(move |bits| word * 64 + bits.trailing_zeros() as usize)
        })
    }
}

#[derive(Debug)]
struct World {
    sector_bytes: usize,
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    journal: Vec<NameChange>,
    random: fastrand::Rng,
    /// Operations until the power goes; `None` is never.
    fuse: Option<u64>,
    /// Syncs until one fails; `None` is never.
    failing_sync: Option<u64>,
    free_bytes: u64,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        let mut random = fastrand::Rng::with_seed(seed);
        let sector_bytes = SECTOR_BYTES[random.usize(0..SECTOR_BYTES.len())];
        SimDisk(Arc::new(Mutex::new(World {
            sector_bytes,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            journal: Vec::new(),
            random,
            fuse: None,
            failing_sync: None,
            free_bytes: u64::MAX,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes after `operations` more.
    pub fn light_fuse(&self, operations: u64) {
        self.world().fuse = Some(operations);
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.world().fuse == Some(0)
    }

    /// The power stays.
    pub fn remove_fuse(&self) {
        self.world().fuse = None;
    }

    /// The sync after `syncs` more fails once.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.world().failing_sync = Some(syncs);
    }

    /// Sets the free space that the disk reports.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.world().free_bytes = bytes;
    }

    /// The disk after a power cut now. Handles of the old one go on with the old one.
    #[must_use]
    pub fn after_power_cut(&self) -> SimDisk {
        let mut world = self.world();
        let changes = world.journal.len();
        let keep = world.random.usize(0..=changes);
        let journal: Vec<NameChange> = world.journal.drain(..).take(keep).collect();
        let mut names = world.durable_names.clone();
        for change in journal {
            apply(&mut names, change);
        }
        let seed = world.random.u64(..);
        let World { files, random, .. } = &mut *world;
        // Each cut favours another share, so that "nearly all" and "nearly nothing" come up too.
        let share = random.u8(..);
        // Nobody can get at a file without a name: nothing of it is taken over.
        let named: HashSet<usize> = names.values().copied().collect();
        let mut after = Vec::with_capacity(files.len());
        for (number, file) in files.iter_mut().enumerate() {
            for sector in std::mem::take(&mut file.dirty).iter() {
                if random.u8(..) <= share {
                    persist(file, sector);
                }
            }
            let durable = if named.contains(&number) { file.durable.clone() } else { Vec::new() };
            let sector_bytes = file.sector_bytes;
            after.push(Content { live: durable.clone(), durable, dirty: Sectors::default(), sector_bytes });
        }
        world.fuse = Some(0);
        let (free_bytes, sector_bytes) = (world.free_bytes, world.sector_bytes);
        SimDisk(Arc::new(Mutex::new(World {
            sector_bytes,
            files: after,
            durable_names: names.clone(),
            names,
            journal: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            fuse: None,
            failing_sync: None,
            free_bytes,
        })))
    }

    /// Flips a bit of a file, on the disk and in what is shown.
    pub fn flip_bit(&self, path: &Path, bit: usize) {
        let mut world = self.world();
        let Some(&file) = world.names.get(path) else { return };
        let content = &mut world.files[file];
        content.live[bit / 8] ^= 1 << (bit % 8);
        content.durable[bit / 8] ^= 1 << (bit % 8);
    }

    /// What a file shows, and would show after a restart if everything were written.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world();
        world.names.get(path).map(|&file| world.files[file].live.clone())
    }

    /// Overwrites bytes of a file behind the log's back, on the disk and in what is shown.
    pub fn overwrite(&self, path: &Path, offset: usize, bytes: &[u8]) {
        let mut world = self.world();
        let Some(&file) = world.names.get(path) else { return };
        let content = &mut world.files[file];
        content.live[offset..offset + bytes.len()].copy_from_slice(bytes);
        content.durable[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Every file with its length.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let world = self.world();
        world.names.iter().map(|(path, &file)| (path.clone(), world.files[file].live.len())).collect()
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Create(path, file) => {
            names.insert(path, file);
        }
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(&from) {
                names.insert(to, file);
            }
        }
        NameChange::Remove(path) => {
            names.remove(&path);
        }
    }
}

fn persist(file: &mut Content, sector: usize) {
    let start = sector * file.sector_bytes;
    let end = (start + file.sector_bytes).min(file.live.len());
    file.durable[start..end].copy_from_slice(&file.live[start..end]);
}

impl World {
    /// Counts an operation against the fuse.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.journal.push(change);
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let content = &mut self.files[file];
        let end = start + bytes.len();
        if end > content.live.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.live[start..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            content.dirty.insert(start / content.sector_bytes..=(end - 1) / content.sector_bytes);
        }
        // Writeback may run at any time, and what it wrote may be dirtied again.
        if self.random.u8(..) < 16 {
            let dirty = content.dirty.clone();
            for sector in dirty.iter() {
                if self.random.bool() {
                    persist(content, sector);
                }
            }
        }
        Ok(())
    }
}

impl Storage for SimDisk {
    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        self.world().operate()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        let mut world = self.world();
        world.operate()?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let sector_bytes = world.sector_bytes;
        world.files.push(Content {
            live: vec![0; len],
            durable: vec![0; len],
            dirty: Sectors::default(),
            sector_bytes,
        });
        let file = world.files.len() - 1;
        world.change_name(NameChange::Create(path.to_owned(), file));
        Ok(Arc::new(SimFile { disk: self.clone(), file, bytes }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let world = self.world();
        let file = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file, bytes: world.files[file].live.len() as u64 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.operate()?;
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.operate()?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change_name(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn shorten(&self, path: &Path, bytes: u64) -> io::Result<bool> {
        let mut world = self.world();
        world.operate()?;
        let file = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let content = &mut world.files[file];
        let is_longer = content.live.len() > bytes;
        if is_longer {
            content.live.truncate(bytes);
            content.durable.truncate(bytes);
            let sectors = bytes.div_ceil(content.sector_bytes);
            let mut dirty = Sectors::default();
            content
                .dirty
                .iter()
                .take_while(|sector| *sector < sectors)
                .for_each(|sector| dirty.insert(sector..=sector));
            content.dirty = dirty;
        }
        Ok(is_longer)
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.operate()?;
        // A journaling file system commits its whole journal.
        let World { journal, durable_names, .. } = &mut *world;
        for change in journal.drain(..) {
            apply(durable_names, change);
        }
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.world().free_bytes)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        Ok(self.world().random.u128(..).to_le_bytes())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
    bytes: u64,
}

impl StoredFile for SimFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let world = self.disk.world();
        let live = &world.files[self.file].live;
        let bytes = live.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.disk.world();
        world.operate()?;
        world.write(self.file, offset, bytes)
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        self.read_at(offset, &mut buffer)?;
        Ok(Bytes::from(buffer))
    }

    fn views_share_memory(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        world.operate()?;
        let fails = match &mut world.failing_sync {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let content = &mut world.files[self.file];
        let dirty = std::mem::take(&mut content.dirty);
        if fails {
            world.failing_sync = None;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        for sector in dirty.iter() {
            persist(content, sector);
        }
        Ok(())
    }

    fn forget(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let content = &mut world.files[self.file];
        let forgotten = usize::try_from(bytes).map_err(io::Error::other)?.min(content.live.len());
        for start in (0..forgotten).step_by(content.sector_bytes) {
            if !content.dirty.contains(start / content.sector_bytes) {
                let sector = start..(start + content.sector_bytes).min(content.live.len());
                content.live[sector.clone()].copy_from_slice(&content.durable[sector]);
            }
        }
        Ok(())
    }
}
