//! The place of a received file, and of the partial file beside it.

use std::{
    collections::HashMap,
    io,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, bail};
use sha2::Sha256;
use tokio::fs;

use crate::wire::{Modified, Refusal, Refuse, cannot, digest_front};

const PARTIAL: &str = ".part";

/// Returns where `path` belongs below `into`. Refuses a path that leads out of `into`, and one with a link in
/// it, because a link can lead out, too.
pub(crate) async fn place(into: &Path, path: &[String]) -> anyhow::Result<PathBuf> {
    let mut place = into.to_owned();
    for name in path {
        let mut parts = Path::new(name).components();
        let plain = matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(part)), None) if part == name.as_str()
        );
        // On Windows, `a:b` is a second stream of the file `a`. `.part` is this program's own suffix.
        if !plain || name.contains([':', '\\', '\0']) || name.ends_with(PARTIAL) {
            bail!(Refusal(format!("{name:?} is no name for a file here")));
        }
        place.push(name);
        match fs::symlink_metadata(&place).await {
            Ok(data) if data.is_symlink() => {
                bail!(Refusal(format!("{} is a link", place.display())))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).refuse(|| cannot("write", &place));
            }
            _ => {}
        }
    }
    if path.is_empty() {
        bail!(Refusal("it has no name".into()));
    }
    Ok(place)
}

/// A file to receive.
pub(crate) struct Incoming {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    pub(crate) modified: Modified,
}

impl Incoming {
    /// True if this version is here already. Compares length and time, as rsync does.
    pub(crate) async fn is_here(&self) -> bool {
        let Ok(data) = fs::symlink_metadata(&self.path).await else {
            return false;
        };
        let modified = data.modified().ok();
        data.is_file()
            && data.len() == self.len
            && modified.map(Modified::from) == Some(self.modified)
    }

    /// The partial file is beside the final one, so that it is on the same disk. Its name contains the
    /// version, so that a part of another version is not resumed.
    pub(crate) fn partial_path(&self) -> anyhow::Result<PathBuf> {
        let mut name = self.path.file_name().context("it has no name")?.to_owned();
        name.push(format!(".{}-{}{PARTIAL}", self.len, self.modified));
        Ok(self.path.with_file_name(name))
    }

    /// Opens or creates the partial file. Returns it with the checksum and the length of what it contains.
    pub(crate) async fn resume(&self, partial: &Path) -> io::Result<(fs::File, Sha256, u64)> {
        let (partial, len) = (partial.to_owned(), self.len);
        let folder = self.path.parent().map(Path::to_owned);
        let opened = tokio::task::spawn_blocking(move || {
            if let Some(folder) = folder {
                std::fs::create_dir_all(folder)?;
            }
            // No race with `open` matters: the claim excludes other connections, and a program that can make
            // a link here can write here anyway.
            if std::fs::symlink_metadata(&partial).is_ok_and(|data| !data.is_file()) {
                return Err(io::Error::other("there is something else than a file"));
            }
            let mut file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(partial)?;
            let from = file.metadata()?.len().min(len);
            file.set_len(from)?;
            let digest = digest_front(&mut file, from)?;
            Ok((fs::File::from_std(file), digest, from))
        });
        opened.await?
    }

    pub(crate) async fn finish(&self, file: fs::File, partial: &Path) -> io::Result<()> {
        let file = file.into_std().await;
        let (partial, path, modified) = (partial.to_owned(), self.path.clone(), self.modified);
        let finished = tokio::task::spawn_blocking(move || {
            if let Some(time) = modified.time() {
                file.set_modified(time)?;
            }
            file.sync_all()?;
            drop(file);
            std::fs::rename(&partial, &path)?;
            // The new name must reach the disk, too. Windows cannot open a folder to sync it.
            #[cfg(unix)]
            if let Some(folder) = path.parent() {
                std::fs::File::open(folder)?.sync_all()?;
            }
            Ok(())
        });
        finished.await?
    }
}

/// The partial files that earlier connections left, by folder. Each connection lists a folder once: to list
/// it for each file would take quadratic time in a folder of many files.
#[derive(Default)]
pub(crate) struct OldParts(HashMap<PathBuf, Vec<PathBuf>>);

impl OldParts {
    /// Removes the partial files of other versions of `file`. Nothing resumes them, and `file` may need their
    /// space.
    pub(crate) async fn remove(&mut self, file: &Incoming) -> anyhow::Result<()> {
        let folder = file.path.parent().context("it lies in no folder")?;
        if !self.0.contains_key(folder) {
            let parts = list_parts(folder).await;
            let parts = parts.refuse(|| cannot("read", folder))?;
            self.0.insert(folder.to_owned(), parts);
        }
        let partial = file.partial_path()?;
        for part in &self.0[folder] {
            if *part == partial || !is_part_of(part, &file.path) {
                continue;
            }
            match fs::remove_file(part).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).refuse(|| cannot("remove", part));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn list_parts(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    let Ok(mut entries) = fs::read_dir(folder).await else {
        // The folder does not exist yet. If it is no folder, writing a file to it fails later.
        return Ok(parts);
    };
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.ends_with(PARTIAL)) {
            parts.push(entry.path());
        }
    }
    Ok(parts)
}

/// True if `part` is a name that [`Incoming::partial_path`] gives to a version of the file at `path`.
fn is_part_of(part: &Path, path: &Path) -> bool {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let (Some(part), Some(file)) = (name(part), name(path)) else {
        return false;
    };
    let version = part
        .strip_prefix(&file)
        .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(PARTIAL));
    let numbers: Option<Vec<u64>> = version.and_then(|version| {
        let numbers = version.split(['-', '.']);
        numbers.map(|number| number.parse().ok()).collect()
    });
    numbers.is_some_and(|numbers| numbers.len() == 3)
}
