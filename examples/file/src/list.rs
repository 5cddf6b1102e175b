//! Lists what to send.

use std::path::{Path, PathBuf};

use anyhow::Context;
use walkdir::{DirEntry, WalkDir};

use crate::wire::cannot;

/// A file or folder to send.
pub(crate) struct Item {
    pub(crate) source: PathBuf,
    /// Its name for the receiver.
    pub(crate) path: Vec<String>,
    pub(crate) is_folder: bool,
    /// Its length when it was listed, for the progress bar.
    pub(crate) len: u64,
}

pub(crate) fn total_len(items: &[Item]) -> u64 {
    items.iter().map(|item| item.len).sum()
}

/// Lists `paths`, and everything in their folders. Also returns the number of files and folders that cannot
/// be sent.
pub(crate) fn list(paths: &[PathBuf]) -> anyhow::Result<(Vec<Item>, u64)> {
    let (mut items, mut refused) = (Vec::new(), 0);
    for root in paths {
        // So that `.` and `..` have a name, too.
        let whole = root.canonicalize().with_context(|| cannot("read", root))?;
        let name = whole
            .file_name()
            .with_context(|| format!("{} has no name", root.display()))?;
        let mut walk = WalkDir::new(&whole).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            let item = entry.map_err(anyhow::Error::from).and_then(|entry| {
                let item = item(Path::new(name), &whole, &entry);
                if item.is_err() && entry.file_type().is_dir() {
                    // So that a folder is reported in one line, not in one for each file in it.
                    walk.skip_current_dir();
                }
                item
            });
            match item {
                Ok(item) => items.extend(item),
                Err(error) => {
                    eprintln!("error: {error:#}");
                    refused += 1;
                }
            }
        }
    }
    Ok((items, refused))
}

/// Returns what to send for `entry`, a part of `whole`, which is sent as `name`. None if it is a device, say.
fn item(name: &Path, whole: &Path, entry: &DirEntry) -> anyhow::Result<Option<Item>> {
    let source = entry.path();
    let data = entry.metadata()?;
    if !data.is_dir() && !data.is_file() {
        let source = source.display();
        eprintln!("warning: {source} is left out: it is neither a file nor a folder");
        return Ok(None);
    }
    let parts = name.iter().chain(source.strip_prefix(whole)?);
    let path: Option<Vec<String>> = parts.map(|part| Some(part.to_str()?.to_owned())).collect();
    let path = path
        .context("its name is not Unicode")
        .with_context(|| cannot("send", source))?;
    Ok(Some(Item {
        source: source.to_owned(),
        path,
        is_folder: data.is_dir(),
        len: if data.is_file() { data.len() } else { 0 },
    }))
}
