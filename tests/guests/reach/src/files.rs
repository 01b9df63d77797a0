//! Files, by `wasi:filesystem`.

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

type Said = Result<String, String>;

pub(crate) fn names() -> Vec<String> {
    get_directories().into_iter().map(|(_, name)| name).collect()
}

pub(crate) fn read(folder: &str, path: &str) -> Said {
    let file = open(folder, path, OpenFlags::empty(), DescriptorFlags::READ)?;
    let (bytes, _) = file.read(1 << 16, 0).map_err(name)?;
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

pub(crate) fn write(folder: &str, path: &str, text: &str) -> Said {
    let file = open(folder, path, OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE)?;
    file.write(text.as_bytes(), 0).map_err(name)?;
    Ok("written".to_owned())
}

pub(crate) fn truncate(folder: &str, path: &str) -> Said {
    open(folder, path, OpenFlags::TRUNCATE, DescriptorFlags::READ)?;
    Ok("emptied".to_owned())
}

pub(crate) fn link(folder: &str, path: &str, to: &str, new: &str) -> Said {
    let (from, to) = (self::folder(folder)?, self::folder(to)?);
    from.link_at(PathFlags::empty(), path, &to, new).map_err(name)?;
    Ok("linked".to_owned())
}

pub(crate) fn symlink(folder: &str, says: &str, path: &str) -> Said {
    self::folder(folder)?.symlink_at(says, path).map_err(name)?;
    Ok("linked".to_owned())
}

pub(crate) fn rename(folder: &str, path: &str, to: &str, new: &str) -> Said {
    let (from, to) = (self::folder(folder)?, self::folder(to)?);
    from.rename_at(path, &to, new).map_err(name)?;
    Ok("moved".to_owned())
}

fn open(folder: &str, path: &str, how: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, String> {
    self::folder(folder)?.open_at(PathFlags::SYMLINK_FOLLOW, path, how, flags).map_err(name)
}

fn folder(name: &str) -> Result<Descriptor, String> {
    get_directories().into_iter().find(|(_, found)| found == name).map(|(folder, _)| folder).ok_or("no folder".into())
}

fn name(error: ErrorCode) -> String {
    error.name().to_owned()
}
