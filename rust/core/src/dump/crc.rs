//! The CRC-32 of a shard against the manifest's, before anything of the shard is used: a bit that
//! fell in a number leaves a number, and nothing else would tell.
//!
//! Threads read parts of the file, and what they found is combined, so that the price is that of
//! reading the file. A file is compared once by a process, unless it was written since.

use crate::error::Result;
use crate::file::{Source, room};
use crate::workers::{Spare, Workers};
use crc32fast::Hasher;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Bytes that one thread takes at once.
const PART: usize = 1 << 20;

/// Bytes read at once: they are still in the cache of the core when they are added.
const CHUNK: usize = 1 << 17;

/// What a part counts as for [`Workers::each_in_turns`]: eight parts a thread between two looks at
/// whoever may stop it.
const COST: usize = 1 << 27;

/// A file as it was compared: path, length, when it was last written, CRC-32.
type Seen = (PathBuf, u64, SystemTime, u32);

static SEEN: Mutex<Option<HashSet<Seen>>> = Mutex::new(None);

static BUFFERS: Spare<Vec<u8>> = Spare::new();

/// Compare the CRC-32 of a shard with the one that the manifest has; `pause` may stop it.
///
/// # Errors
/// It is another one; the file cannot be read; what `pause` returns.
pub(super) fn compare(
    shard: &Source,
    promised: u32,
    workers: &Workers,
    pause: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let seen = (shard.path().to_owned(), shard.len(), shard.modified()?, promised);
    if with_seen(|all| all.contains(&seen)) {
        return Ok(());
    }
    let found = crc32(shard, workers, pause)?;
    if found != promised {
        let message = format!("is {found:08x}, the manifest says {promised:08x}: it was changed");
        return Err(shard.wrong("crc32", message));
    }
    with_seen(|all| all.insert(seen));
    Ok(())
}

fn with_seen<T>(look: impl FnOnce(&mut HashSet<Seen>) -> T) -> T {
    look(SEEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

fn crc32(shard: &Source, workers: &Workers, pause: &mut dyn FnMut() -> Result<()>) -> Result<u32> {
    let n_parts = shard.len().div_ceil(PART as u64) as usize;
    let mut parts = vec![Hasher::new(); n_parts];
    workers.each_in_turns(&mut parts, COST, pause, |i, part| {
        let begin = i as u64 * PART as u64;
        BUFFERS.with(|buffer| add(part, shard, begin, room(buffer, CHUNK)?))
    })?;
    let mut whole = Hasher::new();
    parts.iter().for_each(|part| whole.combine(part));
    Ok(whole.finalize())
}

/// Add the part of the file that begins there.
fn add(part: &mut Hasher, shard: &Source, begin: u64, buffer: &mut [u8]) -> Result<()> {
    let end = shard.len().min(begin + PART as u64);
    let mut at = begin;
    while at < end {
        let chunk = &mut buffer[..CHUNK.min((end - at) as usize)];
        shard.read(chunk, at)?;
        part.update(chunk);
        at += chunk.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may end there")]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn parts_together_are_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..3 * PART + 5).map(|i| ((i * i) >> 7) as u8).collect();
        for n in [0, 1, CHUNK + 1, PART - 1, PART, PART + 1, data.len()] {
            let path = folder.path().join(n.to_string());
            std::fs::write(&path, &data[..n]).unwrap();
            let file = Source::open(&path).unwrap();
            for threads in [1, 2, 8] {
                let workers = Workers::new(Some(threads), false).unwrap();
                let found = crc32(&file, &workers, &mut || Ok(())).unwrap();
                assert_eq!(found, crc32fast::hash(&data[..n]), "{n} bytes, {threads} threads");
            }
        }
    }

    #[test]
    fn a_file_is_compared_once_until_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        std::fs::write(&path, b"whole").unwrap();
        let alone = Workers::new(Some(1), true).unwrap();
        let mut looks = 0;
        let mut compare_it = |promised| {
            let file = Source::open(&path).unwrap();
            compare(&file, promised, &alone, &mut || {
                looks += 1;
                Ok(())
            })
        };
        let promised = crc32fast::hash(b"whole");
        compare_it(promised).unwrap();
        compare_it(promised).unwrap();
        std::fs::write(&path, b"wh0le").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
        let wrong = compare_it(promised).unwrap_err().to_string();
        let found = crc32fast::hash(b"wh0le");
        let said =
            format!("crc32: is {found:08x}, the manifest says {promised:08x}: it was changed");
        assert!(wrong.ends_with(&said), "{wrong}");
        compare_it(found).unwrap();
        assert_eq!(looks, 3);
    }

    #[test]
    fn whoever_is_asked_may_stop_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        std::fs::write(&path, vec![7; 40 * PART]).unwrap();
        let file = Source::open(&path).unwrap();
        let alone = Workers::new(Some(1), true).unwrap();
        let mut left = 3;
        let stopped = crc32(&file, &alone, &mut || {
            left -= 1;
            if left == 0 { Err(Error::Interrupted) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}
