//! Arrays in NumPy's files, `.npy` and `.npz`. Nothing is unpickled, and nothing is allocated by what a file claims: values
//! are handed on one by one as they come.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use npyz::WriterBuilder;
use npyz::npz::NpzWriter;
use npyz::zip::read::ZipFile;
use npyz::zip::result::ZipError;
use npyz::zip::write::FileOptions;
use npyz::zip::{CompressionMethod, ZipArchive};

use crate::files::{unreadable, unwritable, write_atomically};
use crate::{Error, Result};

/// No header is longer, and no file has more arrays.
const LONGEST_HEADER: u64 = 1 << 16;
const MOST_ARRAYS: usize = 1024;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// What an array holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Its sides, the slowest first.
    pub shape: Vec<usize>,
    kind: Kind,
    /// Where its values begin, bytes.
    start: u64,
}

/// A type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// `b`, `i`, `u` or `f`, as NumPy writes it.
    letter: u8,
    bytes: usize,
    is_big_endian: bool,
}

impl Kind {
    fn parse(text: &str) -> Option<Kind> {
        let (order, rest) = match text.as_bytes() {
            [order @ (b'<' | b'>' | b'|' | b'='), rest @ ..] => (*order, rest),
            rest => (b'=', rest),
        };
        let (letter, bytes) = match rest {
            [letter, digit @ b'1'..=b'8'] => (*letter, usize::from(digit - b'0')),
            [b'?'] => (b'b', 1),
            _ => return None,
        };
        let known = match letter {
            b'b' => bytes == 1,
            b'i' | b'u' => matches!(bytes, 1 | 2 | 4 | 8),
            b'f' => matches!(bytes, 2 | 4 | 8),
            _ => false,
        };
        known.then_some(Kind { letter, bytes, is_big_endian: order == b'>' })
    }

    /// The number in `bytes`, of the kind's length.
    fn value(self, bytes: &[u8]) -> f64 {
        let mut word = [0; 8];
        for (i, byte) in bytes.iter().enumerate() {
            word[if self.is_big_endian { self.bytes - 1 - i } else { i }] = *byte;
        }
        let whole = u64::from_le_bytes(word);
        match (self.letter, self.bytes) {
            (b'i', 1) => f64::from(whole as i8),
            (b'i', 2) => f64::from(whole as i16),
            (b'i', 4) => f64::from(whole as i32),
            (b'i', _) => whole as i64 as f64,
            (b'f', 2) => half::f16::from_bits(whole as u16).to_f64(),
            (b'f', 4) => f64::from(f32::from_bits(whole as u32)),
            (b'f', _) => f64::from_bits(whole),
            _ => whole as f64,
        }
    }
}

impl Header {
    /// How many numbers the array has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Parses what stands before the values, and leaves `file` at the first of them.
    fn read(file: &mut impl Read) -> Result<Header, String> {
        let failed = |why: io::Error| why.to_string();
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(failed)?;
        if !magic.starts_with(b"\x93NUMPY") {
            return Err("it does not begin as a .npy file does".into());
        }
        let mut length = [0; 4];
        let words = if magic[6] == 1 { 2 } else { 4 };
        file.read_exact(&mut length[..words]).map_err(failed)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length > LONGEST_HEADER {
            return Err(format!("its header claims {length} bytes"));
        }
        let mut text = Vec::new();
        file.by_ref().take(length).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 != length {
            return Err("it is cut off within its header".into());
        }
        let text = String::from_utf8_lossy(&text);
        let value =
            |key: &str| Some(text.split_once(&format!("'{key}'"))?.1.trim_start().strip_prefix(':')?.trim_start());
        let descr = value("descr").ok_or("its header has no descr")?;
        let quoted = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(text, _)| text);
        let kind = quoted.and_then(Kind::parse).ok_or_else(|| {
            let shown: String = descr.chars().take(24).filter(|c| !c.is_control()).collect();
            format!("its values are of the type {shown:?}, which are no plain numbers")
        })?;
        let inner = value("shape").and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.split_once(')'));
        let sides = inner.ok_or("its header has no shape")?.0.split(',').map(str::trim).filter(|side| !side.is_empty());
        let shape: Option<Vec<usize>> = sides.map(|side| side.trim_end_matches('L').parse().ok()).collect();
        let bytes = |shape: &Vec<usize>| {
            shape
                .iter()
                .try_fold(kind.bytes, |product, side| product.checked_mul(*side))
                .filter(|bytes| *bytes < 1 << 60)
        };
        let shape = shape.filter(|shape| bytes(shape).is_some()).ok_or("its shape cannot be")?;
        if value("fortran_order").is_some_and(|rest| rest.starts_with("True")) && shape.len() > 1 {
            return Err("it is in Fortran order, save it through np.ascontiguousarray".into());
        }
        Ok(Header { shape, kind, start: (8 + words) as u64 + length })
    }
}

/// A file that is open for reading.
pub(super) struct Arrays {
    path: PathBuf,
    inner: Inner,
}

enum Inner {
    Npy(File),
    Npz(ZipArchive<BufReader<File>>),
}

/// The name of the array of a `.npy` file.
pub(super) const ONLY: &str = "";

impl Arrays {
    /// Opens a `.npy` or `.npz` file.
    ///
    /// # Errors
    /// [`Error::Data`], naming it, if it cannot be read or is no archive.
    pub fn open(path: &Path) -> Result<Arrays> {
        let metadata = path.metadata().map_err(|why| unreadable(path, &why))?;
        if !metadata.is_file() {
            return Err(Error::Data(format!("{} is no regular file; copy or generate it again", path.display())));
        }
        let file = File::open(path).map_err(|why| unreadable(path, &why))?;
        let inner = if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) {
            Inner::Npy(file)
        } else {
            let archive = ZipArchive::new(BufReader::new(file)).map_err(|why| damaged(path, None, &why.to_string()))?;
            if archive.len() > MOST_ARRAYS {
                return Err(damaged(path, None, &format!("it claims {} arrays", archive.len())));
            }
            Inner::Npz(archive)
        };
        Ok(Arrays { path: path.to_path_buf(), inner })
    }

    /// The names of its arrays, sorted.
    pub fn names(&self) -> Vec<String> {
        match &self.inner {
            Inner::Npy(_) => vec![ONLY.to_owned()],
            Inner::Npz(archive) => {
                let mut names: Vec<String> =
                    archive.file_names().filter_map(|name| name.strip_suffix(".npy")).map(str::to_owned).collect();
                names.sort();
                names
            }
        }
    }

    /// What the array `name` holds; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Data`], naming the file, if it is unreadable, holds no plain numbers, or fewer or more than it says.
    pub fn header(&mut self, name: &str) -> Result<Option<Header>> {
        let path = self.path.clone();
        let Some((header, have)) = self.with(name, |mut entry, size| Ok((Header::read(&mut entry), size)))? else {
            return Ok(None);
        };
        let header = header.map_err(|why| damaged(&path, Some(name), &why))?;
        let need = header.start + (header.len() * header.kind.bytes) as u64;
        if have != need {
            let why = format!("it has {have} bytes where its shape {:?} needs {need}", header.shape);
            return Err(damaged(&path, Some(name), &why));
        }
        Ok(Some(header))
    }

    /// Hands on `count` values of the array `name` from number `from` on.
    ///
    /// # Errors
    /// As for [`Arrays::header`], [`Error::Data`] if the array is missing or too short, and what `visit` fails with.
    pub fn each(
        &mut self,
        name: &str,
        from: usize,
        count: usize,
        mut visit: impl FnMut(usize, f64) -> Result<()>,
    ) -> Result<()> {
        let path = self.path.clone();
        let header = self.header(name)?.ok_or_else(|| missing(&path, name))?;
        if from.checked_add(count).is_none_or(|end| end > header.len()) {
            let why = format!("it has {} values where {} are needed", header.len(), from.saturating_add(count));
            return Err(damaged(&path, Some(name), &why));
        }
        let kind = header.kind;
        let skipped = header.start + (from * kind.bytes) as u64;
        let read = |entry: &mut dyn Entry, _| -> Result<()> {
            let failed = |why: io::Error| damaged(&path, Some(name), &why.to_string());
            entry.skip_to(skipped).map_err(failed)?;
            let mut left = count * kind.bytes;
            let mut chunk = [0; CHUNK];
            let mut at = 0;
            while left > 0 {
                let part = &mut chunk[..left.min(CHUNK)];
                entry.read_exact(part).map_err(failed)?;
                for bytes in part.chunks_exact(kind.bytes) {
                    visit(at, kind.value(bytes))?;
                    at += 1;
                }
                left -= part.len();
            }
            Ok(())
        };
        self.with(name, read)?.ok_or_else(|| missing(&self.path, name))
    }

    /// What `read` makes of the bytes of an array and of how many there are.
    fn with<V>(&mut self, name: &str, read: impl FnOnce(&mut dyn Entry, u64) -> Result<V>) -> Result<Option<V>> {
        match &mut self.inner {
            Inner::Npy(file) if name == ONLY => {
                let wrong = |why: io::Error| unreadable(&self.path, &why);
                let size = file.metadata().map_err(wrong)?.len();
                file.rewind().map_err(wrong)?;
                read(file, size).map(Some)
            }
            Inner::Npy(_) => Ok(None),
            Inner::Npz(archive) => {
                let found = match archive.by_name(&format!("{name}.npy")) {
                    Err(ZipError::FileNotFound) => return Ok(None),
                    found => found.map(|entry| (entry.compression(), entry.data_start(), entry.size())),
                };
                let (method, start, size) = found.map_err(|why| damaged(&self.path, Some(name), &why.to_string()))?;
                if method != CompressionMethod::Stored {
                    let entry = archive.by_name(&format!("{name}.npy"));
                    let mut entry = entry.map_err(|why| damaged(&self.path, Some(name), &why.to_string()))?;
                    return read(&mut entry, size).map(Some);
                }
                // What is not compressed is read from where it stands.
                let mut file = File::open(&self.path).map_err(|why| unreadable(&self.path, &why))?;
                file.seek(SeekFrom::Start(start)).map_err(|why| unreadable(&self.path, &why))?;
                read(&mut Part { file, start }, size).map(Some)
            }
        }
    }
}

/// The bytes of one array.
trait Entry: Read {
    /// Goes from its beginning to byte `at`.
    fn skip_to(&mut self, at: u64) -> io::Result<()>;
}

impl Entry for File {
    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        self.seek(SeekFrom::Start(at)).map(drop)
    }
}

impl Entry for ZipFile<'_> {
    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        io::copy(&mut self.take(at), &mut io::sink()).map(drop)
    }
}

/// A stretch of a file.
struct Part {
    file: File,
    start: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Entry for Part {
    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.start.saturating_add(at))).map(drop)
    }
}

fn damaged(path: &Path, name: Option<&str>, why: &str) -> Error {
    let what = match name {
        None => "cannot be read".to_owned(),
        Some(ONLY) => "is no array that can be read".to_owned(),
        Some(name) => format!("has no array {name:?} that can be read"),
    };
    let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Error::Data(format!("{} {what} ({why}); copy or generate it again", path.display()))
}

/// That a file lacks an array.
pub(super) fn missing(path: &Path, name: &str) -> Error {
    Error::Data(format!("{} has no array {name:?}; copy or generate it again", path.display()))
}

/// Values that are written.
pub(super) enum Values<'a> {
    /// As u8.
    Bytes(&'a [u8]),
    /// As u16.
    Words(&'a [u16]),
    /// As f64.
    Floats(&'a [f64]),
}

/// Writes a compressed `.npz` file of arrays by name and shape.
///
/// # Errors
/// [`Error::Data`] if it cannot be written.
pub(super) fn write(path: &Path, arrays: &[(&str, &[usize], Values)]) -> Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    let fill = |bytes: &mut Cursor<Vec<u8>>| -> io::Result<()> {
        let mut file = NpzWriter::new(bytes);
        for (name, shape, values) in arrays {
            let shape: Vec<u64> = shape.iter().map(|&side| side as u64).collect();
            let options = FileOptions::default();
            macro_rules! fill {
                ($type:ty, $values:expr) => {{
                    let array = file.array::<$type>(name, options)?.default_dtype().shape(&shape);
                    let mut array = array.begin_nd()?;
                    array.extend($values.iter().copied())?;
                    array.finish()?;
                }};
            }
            match values {
                Values::Bytes(values) => fill!(u8, values),
                Values::Words(values) => fill!(u16, values),
                Values::Floats(values) => fill!(f64, values),
            }
        }
        Ok(())
    };
    fill(&mut bytes).map_err(|why| unwritable(path, &why))?;
    write_atomically(path, bytes.get_ref())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A .npy file of bytes.
    fn npy(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.bytes());
        bytes.extend(values);
        bytes
    }

    fn values(path: &Path, name: &str, from: usize, count: usize) -> Result<Vec<f64>> {
        let mut found = Vec::new();
        Arrays::open(path)?.each(name, from, count, |_, value| {
            found.push(value);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn numbers_of_every_kind_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for (descr, bytes, expected) in [
            ("|u1", vec![1, 255], vec![1.0, 255.0]),
            ("|b1", vec![1, 0], vec![1.0, 0.0]),
            ("|i1", vec![1, 255], vec![1.0, -1.0]),
            ("<i2", vec![1, 0, 255, 255], vec![1.0, -1.0]),
            (">i2", vec![0, 1, 255, 254], vec![1.0, -2.0]),
            ("<i4", vec![1, 0, 0, 0, 255, 255, 255, 255], vec![1.0, -1.0]),
            ("<f4", [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect(), vec![1.5, -2.0]),
            (">f8", [1.5f64, -2.0].iter().flat_map(|v| v.to_be_bytes()).collect(), vec![1.5, -2.0]),
            ("<i8", [-7i64, 9].iter().flat_map(|v| v.to_le_bytes()).collect(), vec![-7.0, 9.0]),
        ] {
            fs::write(&path, npy(descr, "False", "(2,)", &bytes)).unwrap();
            assert_eq!(values(&path, ONLY, 0, 2).unwrap(), expected, "{descr}");
            assert_eq!(values(&path, ONLY, 1, 1).unwrap(), expected[1..], "{descr}");
        }
    }

    #[test]
    fn what_is_written_is_read_from_any_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let (bytes, floats): (Vec<u8>, Vec<f64>) = ((0..200).collect(), vec![0.5, -1.0]);
        write(&path, &[("a", &[10, 20], Values::Bytes(&bytes)), ("b", &[2], Values::Floats(&floats))]).unwrap();
        let mut arrays = Arrays::open(&path).unwrap();
        assert_eq!(arrays.names(), ["a", "b"]);
        assert_eq!(arrays.header("a").unwrap().unwrap().shape, [10, 20]);
        assert!(arrays.header("c").unwrap().is_none());
        assert_eq!(values(&path, "a", 150, 3).unwrap(), [150.0, 151.0, 152.0]);
        assert_eq!(values(&path, "b", 0, 2).unwrap(), floats);
        assert!(values(&path, "a", 199, 2).is_err() && values(&path, "c", 0, 0).is_err());
        // Without compression, as np.savez writes.
        let mut stored = npyz::zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in ["x", "y"] {
            stored
                .start_file(format!("{name}.npy"), FileOptions::default().compression_method(CompressionMethod::Stored))
                .unwrap();
            io::Write::write_all(&mut stored, &npy("|u1", "False", "(3,)", &[7, 8, name.as_bytes()[0]])).unwrap();
        }
        fs::write(&path, stored.finish().unwrap().into_inner()).unwrap();
        assert_eq!(values(&path, "y", 1, 2).unwrap(), [8.0, f64::from(b'y')]);
    }

    #[test]
    fn what_is_no_array_of_numbers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for (bytes, expected) in [
            (Vec::new(), "is no array"),
            (b"not an array at all".to_vec(), "does not begin as"),
            (npy("|O", "False", "(1,)", &[0; 8]), "no plain numbers"),
            (npy("<c8", "False", "(1,)", &[0; 8]), "no plain numbers"),
            (npy("|u1", "True", "(2, 2)", &[0; 4]), "Fortran order"),
            (npy("|u1", "False", "(2, 2)", &[0; 3]), "needs"),
            (npy("|u1", "False", "(2, 2)", &[0; 5]), "needs"),
            (npy("|u1", "False", "(-1,)", &[0; 5]), "its shape cannot be"),
            (npy("<i8", "False", "(4294967296, 4294967296)", &[0; 5]), "its shape cannot be"),
            (npy("|u1", "False", "2", &[0; 2]), "has no shape"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "claims"),
        ] {
            fs::write(&path, bytes).unwrap();
            let why = values(&path, ONLY, 0, 1).unwrap_err().to_string();
            assert!(why.contains(expected) && why.contains("a.npy") && !why.contains('\n'), "{why}");
        }
        let path = dir.path().join("a.npz");
        fs::write(&path, "no archive").unwrap();
        assert!(values(&path, "a", 0, 1).unwrap_err().to_string().contains("a.npz cannot be read"));
    }
}
