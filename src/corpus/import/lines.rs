//! A file line by line, plain or gzip, in flat memory.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::corpus::Error;

/// Bytes that a line has at most.
const LINE_BYTES: usize = 64 << 20;
/// The line buffer is given back above this size, so that one long line does not stay in memory.
const KEPT_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 1 << 17;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Bytes read so far, over all files of an import, as they are on disk.
pub(super) type Counter = Rc<Cell<u64>>;

/// A line's number, from 1, and the line without its end, or why it cannot be read.
pub(super) type Line<'buffer> = (u64, Result<&'buffer str, String>);

/// The lines of a file.
pub(super) struct Lines<'reader> {
    path: PathBuf,
    reader: Box<dyn BufRead + 'reader>,
    buffer: Vec<u8>,
    number: u64,
    limit: usize,
}

impl<'reader> Lines<'reader> {
    /// Starts reading; gzip is told by its first two bytes, whatever the file's name.
    pub(super) fn new(path: &Path, reader: impl Read + 'reader, counter: Counter) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_path_buf(), source };
        let mut counted = Counted { reader, counter };
        let mut first = Vec::with_capacity(GZIP.len());
        (&mut counted).take(GZIP.len() as u64).read_to_end(&mut first).map_err(failed)?;
        let is_gzip = first == GZIP;
        let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(first).chain(counted));
        let reader: Box<dyn BufRead> = if is_gzip {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { path: path.to_path_buf(), reader, buffer: Vec::new(), number: 0, limit: LINE_BYTES })
    }

    /// The next line; none after the last.
    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, Error> {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        let mut limited = (&mut self.reader).take(self.limit as u64 + 1);
        if let Err(source) = limited.read_until(b'\n', &mut self.buffer) {
            return Err(self.failed(source));
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if self.buffer.len() > self.limit && self.buffer.last() != Some(&b'\n') {
            self.skip_line()?;
            return Ok(Some((self.number, Err(format!("longer than {} bytes", self.limit)))));
        }
        let mut line = self.buffer.as_slice();
        if self.number == 1 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        let read = std::str::from_utf8(line);
        let line = read.map_err(|error| format!("not UTF-8 at byte {} of the line", error.valid_up_to() + 1));
        Ok(Some((self.number, line)))
    }

    fn skip_line(&mut self) -> Result<(), Error> {
        loop {
            let (used, ended) = match self.reader.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(end) => (end + 1, true),
                    None => (bytes.len(), false),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            self.reader.consume(used);
            if ended {
                return Ok(());
            }
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        let source = match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(source.kind(), format!("after line {}: the compressed file was cut short", self.number))
            }
            kind => io::Error::new(kind, format!("after line {}: {source}", self.number)),
        };
        Error::File { path: self.path.clone(), source }
    }
}

struct Counted<R> {
    reader: R,
    counter: Counter,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.counter.set(self.counter.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;

    fn read(bytes: &[u8], limit: usize) -> Vec<(u64, Result<String, String>)> {
        let mut lines = Lines::new(Path::new("-"), bytes, Counter::default()).unwrap();
        lines.limit = limit;
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            all.push((number, line.map(str::to_owned)));
        }
        all
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_come_without_their_ends() {
        let expected: Vec<(u64, Result<String, String>)> =
            [(1, "é"), (2, ""), (3, "b")].map(|(number, line)| (number, Ok(line.to_owned()))).to_vec();
        for bytes in ["é\n\nb", "é\r\n\r\nb\r\n", "\u{feff}é\n\nb\n"] {
            assert_eq!(read(bytes.as_bytes(), 100), expected);
            assert_eq!(read(&gzip(bytes.as_bytes()), 100), expected);
        }
        let members = [gzip("é\n\n".as_bytes()), gzip(b"b\n")].concat();
        assert_eq!(read(&members, 100), expected);
        assert!(read(b"", 100).is_empty());
        assert_eq!(read(b"x", 100), [(1, Ok("x".to_owned()))]);
    }

    #[test]
    fn bad_lines_do_not_stop_the_next() {
        let lines = read(b"ab\xff\nabcdef\nabcde\nxy", 5);
        assert_eq!(lines[0], (1, Err("not UTF-8 at byte 3 of the line".into())));
        assert_eq!(lines[1], (2, Err("longer than 5 bytes".into())));
        assert_eq!(lines[2..], [(3, Ok("abcde".into())), (4, Ok("xy".into()))]);
        assert_eq!(read(b"abcdefghijkl", 5), [(1, Err("longer than 5 bytes".into()))]);
    }

    #[test]
    fn a_cut_gzip_file_is_named_with_its_line() {
        let mut bytes = gzip("line\n".repeat(10_000).as_bytes());
        bytes.truncate(bytes.len() - 4);
        let mut lines = Lines::new(Path::new("corpus.jsonl.gz"), &bytes[..], Counter::default()).unwrap();
        let error = loop {
            match lines.next() {
                Ok(line) => assert!(line.is_some()),
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            error.contains("corpus.jsonl.gz") && error.contains("after line 10000") && error.contains("cut short"),
            "{error}"
        );
    }
}
