//! A file of jobs, one a line: read line by line, of any size, with memory for one line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use uuid::Uuid;

/// A line that is not blank.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    /// Counted from 1, blank ones included.
    pub(super) number: u64,
    /// Without its line ending.
    pub(super) bytes: &'a [u8],
    /// It was longer than what is kept of a line: `bytes` are the beginning.
    pub(super) cut: bool,
}

/// The lines of a file.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    number: u64,
    line: Vec<u8>,
    bytes_max: usize,
    read: u64,
}

/// Opens what can be read twice: the file, or a copy of what comes through a pipe. `-` is stdin.
pub(super) fn open(path: &Path) -> Result<File> {
    if path == Path::new("-") {
        return spool(&mut io::stdin().lock()).context("cannot keep stdin in a temporary file");
    }
    let mut file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let kind = file.metadata().with_context(|| format!("cannot look at `{}`", path.display()))?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    spool(&mut file).with_context(|| format!("cannot keep `{}` in a temporary file", path.display()))
}

/// Copies `source` into a file that has no name, and is gone with the process.
fn spool(source: &mut dyn Read) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("sandhog-{}", Uuid::now_v7()));
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(source, &mut file)?;
    Ok(file)
}

/// The lines of `file`, from its beginning.
pub(super) fn lines(file: &mut File, bytes_max: usize) -> io::Result<Lines<BufReader<&mut File>>> {
    file.seek(SeekFrom::Start(0))?;
    Ok(Lines::new(BufReader::with_capacity(1 << 18, file), bytes_max))
}

// === impl Lines ===

impl<R: BufRead> Lines<R> {
    /// The lines of `reader`, of each at most `bytes_max` bytes.
    pub(super) fn new(reader: R, bytes_max: usize) -> Lines<R> {
        Lines { reader, number: 0, line: Vec::new(), bytes_max, read: 0 }
    }

    /// How many bytes were read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The next line that is not blank.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            let Some(cut) = self.read_line()? else { return Ok(None) };
            self.number += 1;
            if self.line.last() == Some(&b'\r') && !cut {
                self.line.pop();
            }
            if cut || !self.line.trim_ascii().is_empty() {
                return Ok(Some(Line { number: self.number, bytes: &self.line, cut }));
            }
        }
    }

    /// Reads one line; none at the end, else whether it was cut.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        let (mut cut, mut any) = (false, false);
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if available.is_empty() {
                return Ok(any.then_some(cut));
            }
            any = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let content = &available[..end.unwrap_or(available.len())];
            let room = self.bytes_max - self.line.len();
            cut |= content.len() > room;
            self.line.extend_from_slice(&content[..content.len().min(room)]);
            let used = content.len() + usize::from(end.is_some());
            self.reader.consume(used);
            self.read += used as u64;
            if end.is_some() {
                return Ok(Some(cut));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(u64, &str, bool)]) {
        // A small buffer, so that lines span several.
        let mut lines = Lines::new(BufReader::with_capacity(3, text.as_bytes()), 5);
        let mut found = Vec::new();
        while let Some(line) = lines.next().expect("reads memory") {
            found.push((line.number, String::from_utf8_lossy(line.bytes).into_owned(), line.cut));
        }
        let expected: Vec<_> = expected.iter().map(|(n, line, cut)| (*n, (*line).to_owned(), *cut)).collect();
        assert_eq!(found, expected, "{text:?}");
        assert_eq!(lines.bytes_read(), text.len() as u64);
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_skipped() {
        check("", &[]);
        check("a\n\n \r\nb", &[(1, "a", false), (4, "b", false)]);
        check("a\r\nb\n", &[(1, "a", false), (2, "b", false)]);
    }

    #[test]
    fn long_line_is_cut_and_the_next_one_is_whole() {
        check("12345\n1234567890\nab\n", &[(1, "12345", false), (2, "12345", true), (3, "ab", false)]);
    }

    #[test]
    fn lines_are_what_stands_between_line_ends_whatever_they_are() {
        const BYTES_MAX: usize = 8;
        crate::fuzzing::fuzz("lines", Vec::new(), |bytes| {
            let mut lines = Lines::new(BufReader::with_capacity(3, bytes), BYTES_MAX);
            let mut expected = (1..).zip(bytes.split(|byte| *byte == b'\n')).filter_map(|(number, whole)| {
                let cut = whole.len() > BYTES_MAX;
                let kept = if cut { &whole[..BYTES_MAX] } else { whole.strip_suffix(b"\r").unwrap_or(whole) };
                (cut || !kept.trim_ascii().is_empty()).then_some(Line { number, bytes: kept, cut })
            });
            while let Some(line) = lines.next().expect("reads memory") {
                assert_eq!(Some(line), expected.next());
            }
            assert_eq!(expected.next(), None);
            assert_eq!(lines.bytes_read(), bytes.len() as u64);
        });
    }
}
