//! Reading dumps against what was written, and each promise of the format broken once.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "common/cases.rs"]
mod cases;
mod common;
#[path = "common/editing.rs"]
mod editing;

use cases::cases;
use common::{Entry, Store, write_dump};
use editing::{SHARD, changed, edit_columns, edit_manifest, edit_shard, numbers, seal};
use pie_fast_core::dump::{Dump, Entries, FeatureEntries, FloatType, Summary, Watch};
use pie_fast_core::{Error, Result};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

const N_LAYERS: u64 = 3;
const N_FEATURES: u64 = 7;

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -10.0f32..10.0,
        1 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 2.0, f32::MIN_POSITIVE / 4.0, 6e4]),
    ]
}

fn prompt() -> impl Strategy<Value = Vec<Entry>> {
    let pair = (0..(N_LAYERS * N_FEATURES) as u32, 0..4u16);
    let entries = prop::collection::btree_map(pair, (value(), value()), 0..12);
    entries.prop_map(|entries| entries.into_iter().map(|((f, p), (a, g))| (f, p, a, g)).collect())
}

fn prompts() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    prop_oneof![
        3 => prop::collection::vec(prompt(), 0..6),
        1 => (prop::collection::vec(prompt(), 1..9), 250..600usize)
            .prop_map(|(some, n)| (0..n).map(|i| some[i * i % some.len()].clone()).collect()),
    ]
}

/// What the store keeps of the activations.
fn stored(prompts: &[Vec<Entry>], store: Store) -> Vec<Vec<Entry>> {
    let round = |a: f32| match store {
        Store::F32 => a,
        Store::F16 => half::f16::from_f32(a).to_f32(),
        Store::Bf16 => half::bf16::from_f32(a).to_f32(),
    };
    let of = |prompt: &Vec<Entry>| prompt.iter().map(|&(f, p, a, g)| (f, p, round(a), g)).collect();
    prompts.iter().map(of).collect()
}

fn entries(prompts: &[Vec<Entry>]) -> Entries {
    let mut out = Entries { prompt_ptr: vec![0], attribution: Some(vec![]), ..Entries::default() };
    for prompt in prompts {
        for &(feature, position, activation, attribution) in prompt {
            out.feature.push(feature);
            out.position.push(position.into());
            out.activation.push(activation);
            out.attribution.as_mut().unwrap().push(attribution);
        }
        out.prompt_ptr.push(out.feature.len() as i64);
    }
    out
}

fn entries_of(prompts: &[Vec<Entry>], features: &[i64]) -> FeatureEntries {
    let mut out = FeatureEntries { attribution: Some(vec![]), ..FeatureEntries::default() };
    for (i, prompt) in prompts.iter().enumerate() {
        for &(feature, position, activation, attribution) in prompt {
            if features.contains(&feature.into()) {
                out.prompt.push(i as i64);
                out.position.push(position.into());
                out.feature.push(feature);
                out.activation.push(activation);
                out.attribution.as_mut().unwrap().push(attribution);
            }
        }
    }
    out
}

fn summary(prompts: &[Vec<Entry>], n_features: u64) -> Summary {
    let all: Vec<Entry> = prompts.concat();
    let (mut layers, mut exponents) = (BTreeMap::new(), BTreeMap::new());
    for &(feature, _, activation, _) in &all {
        *layers.entry(u64::from(feature) / n_features).or_insert(0) += 1;
        if activation != 0.0 {
            let power = f64::from(activation).abs().log2().floor() as i32;
            *exponents.entry(power.max(-127)).or_insert(0) += 1;
        }
    }
    let smallest = all.iter().map(|e| e.2).reduce(f32::min);
    Summary {
        layers,
        exponents,
        n_zero: all.iter().filter(|e| e.2 == 0.0).count() as u64,
        n_negative: all.iter().filter(|e| e.2 < 0.0).count() as u64,
        range: smallest.map(|least| (least, all.iter().map(|e| e.2).fold(least, f32::max))),
        last_position: all.iter().map(|e| e.1.into()).max(),
    }
}

/// Everything that reads a dump against what was written into it.
fn check(dump: &Dump, want: &[Vec<Entry>], features: &[i64], range: (u64, u64)) {
    let n: usize = want.iter().map(Vec::len).sum();
    assert_eq!((dump.n_prompts(), dump.n_active()), (want.len() as u64, n as u64));
    let (first, count) = (range.0.min(dump.n_prompts()), range.1);
    let count = count.min(dump.n_prompts() - first);
    let some = &want[first as usize..(first + count) as usize];
    assert_eq!(dump.entries(first, count, &mut |_, _| Ok(())).unwrap(), entries(some));
    assert_eq!(dump.entries(0, dump.n_prompts(), &mut |_, _| Ok(())).unwrap(), entries(want));
    let mut told = vec![(0, n as u64)];
    let mut watch = |done, total| {
        told.push((done, total));
        Ok(())
    };
    let found = dump.entries_of(features, &mut watch).unwrap();
    assert_eq!(found, entries_of(want, features));
    let of = dump.summary(&mut watch).unwrap();
    assert_eq!(of, summary(want, dump.manifest().n_features));
    dump.verify(None, &mut watch).unwrap();
    assert!(told.iter().all(|&(done, total)| done <= total && total == n as u64), "{told:?}");
    assert_eq!(told.last(), Some(&(n as u64, n as u64)));
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn what_was_written_is_read(
        prompts in prompts(),
        cuts in prop::collection::vec(0..600usize, 0..4),
        store in prop::sample::select(vec![Store::F32, Store::F16, Store::Bf16]),
        features in prop::collection::vec(0..(N_LAYERS * N_FEATURES) as i64, 0..8),
        range in (0..600u64, 0..600u64),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(prompts.len())).collect();
        cuts.sort_unstable();
        write_dump(folder.path(), &prompts, (N_LAYERS, N_FEATURES), &cuts, store);
        (0..=cuts.len()).for_each(|i| seal(folder.path(), i));
        let dump = Dump::open(folder.path()).unwrap();
        check(&dump, &stored(&prompts, store), &features, range);
    }
}

/// Pieces end within shards and blocks, and a file is hashed in several reads.
#[test]
fn a_large_dump_is_read_in_pieces() {
    let prompt = |i: usize, n: usize| -> Vec<Entry> {
        (0..n as u32)
            .map(|f| (f / 2 * 2, (f % 2 * 300) as u16, (f % 97) as f32, i as f32))
            .collect()
    };
    let sizes = [400_000, 400_000, 10, 0, 1_200_000, 7, 300_000];
    let prompts: Vec<_> = sizes.iter().enumerate().map(|(i, &n)| prompt(i, n)).collect();
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &prompts, (4, 300_000), &[2], Store::F32);
    (0..2).for_each(|i| seal(folder.path(), i));
    let dump = Dump::open(folder.path()).unwrap();
    check(&dump, &prompts, &[0, 399_998, 1_199_998, 5], (1, 4));
    // A piece has at most 2^20 entries, or one prompt.
    let n = sizes.iter().sum::<usize>() as u64;
    let ends = [800_000, 800_010, 2_000_010, n].map(|done| (done, n));
    assert_eq!(told(|watch| drop(dump.summary(watch).unwrap())), ends);
    assert_eq!(told(|watch| drop(dump.entries_of(&[], watch).unwrap())), ends);
    // Here before each piece.
    let starts = [(0, n), ends[0], ends[1], ends[2]];
    assert_eq!(told(|watch| drop(dump.entries(0, 7, watch).unwrap())), starts);
}

/// What a call says of its progress.
fn told(call: impl FnOnce(&mut Watch<'_>)) -> Vec<(u64, u64)> {
    let mut told = vec![];
    call(&mut |done, total| {
        told.push((done, total));
        Ok(())
    });
    told
}

#[test]
fn a_piece_lies_in_one_block_and_one_shard() {
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &vec![vec![(0, 1, 1.0, 0.5)]; 600], (3, 7), &[100, 530], Store::F32);
    let dump = Dump::open(folder.path()).unwrap();
    let ends = [100, 256, 512, 530, 600].map(|done| (done, 600));
    assert_eq!(told(|watch| drop(dump.summary(watch).unwrap())), ends);
}

#[test]
fn a_part_needs_the_shards_of_its_prompts_only() {
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &vec![vec![(0, 1, 1.0, 0.5)]; 6], (3, 7), &[2, 5], Store::F32);
    (0..3).for_each(|i| seal(folder.path(), i));
    std::fs::remove_file(folder.path().join("shard-00001.safetensors")).unwrap();
    for prompts in [0..2, 1..2, 5..6, 5..9, 9..u64::MAX, 0..0, 3..3] {
        let dump = Dump::open_prompts(folder.path(), prompts).unwrap();
        assert_eq!((dump.n_prompts(), dump.n_active()), (6, 6));
        assert_eq!(dump.entries(1, 1, &mut |_, _| Ok(())).unwrap().feature, [0]);
        let missing = dump.entries(1, 2, &mut |_, _| Ok(())).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }), "{missing}");
    }
    for prompts in [0..3, 2..3, 4..5, 4..6, 1..6, 0..u64::MAX] {
        let missing = Dump::open_prompts(folder.path(), prompts.clone()).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }), "{prompts:?}: {missing}");
    }
}

fn small(folder: &Path) {
    let prompts = vec![
        vec![(0, 1, 1.0, 0.5), (4, 0, -2.0, 1.0), (4, 2, 0.5, 0.0)],
        vec![(1, 3, 3.0, -1.0)],
        vec![(0, 0, 1.5, 2.0), (20, 5, 1.0, 1.0)],
    ];
    write_dump(folder, &prompts, (N_LAYERS, N_FEATURES), &[], Store::F32);
    seal(folder, 0);
}

/// Everything that a reader does.
fn read_all(folder: &Path) -> Result<()> {
    let dump = Dump::open(folder)?;
    dump.entries(0, dump.n_prompts(), &mut |_, _| Ok(()))?;
    dump.entries_of(&[1], &mut |_, _| Ok(()))?;
    dump.verify(Some(&[3, 4, 0]), &mut |_, _| Ok(()))
}

/// The small dump, changed, is refused with this message about this file.
fn refused(file: &str, want: &str, change: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    read_all(folder.path()).unwrap();
    change(folder.path());
    let error = read_all(folder.path()).unwrap_err();
    let Error::Format { path, field, message } = &error else { panic!("{error}") };
    assert_eq!(path, &folder.path().join(file));
    assert!(format!("{field}: {message}").starts_with(want), "{error} / {want}");
}

#[test]
fn lying_manifests() {
    let max = i64::MAX;
    for (key, value, want) in [
        ("format", json!("other"), "format: is not \"pie-fast-dump\""),
        ("format", json!(1), "format: is not a string"),
        ("version", json!(2), "version: 2 is newer than 1"),
        ("version", json!(0), "version: 0 is not a whole number in [1,"),
        ("n_layers", json!(0), "n_layers: 0 is not a whole number in [1, 4294967296]"),
        (
            "n_features",
            json!(1u64 << 31),
            "n_features: 2147483648 is not a whole number in [1, 1431655765]",
        ),
        ("n_features", json!(6), "feature: 20 at entry 5 is outside [0, 18)"),
        ("n_prompts", json!(4), "n_prompts: is 4, the shards have 3"),
        ("n_prompts", json!(-3), "n_prompts: -3 is not a whole number in [0,"),
        ("shards", json!({}), "shards: is not a list"),
        ("shards", json!([1]), "shards[0]: is not an object"),
        ("shards", json!([{}]), "shards[0].file: is missing"),
    ] {
        let file = if key == "n_features" && want.starts_with("feature") {
            SHARD
        } else {
            "manifest.json"
        };
        refused(file, want, |folder| edit_manifest(folder, |all| all[key] = value));
    }
    let digits = |n, digit: &str| json!(digit.repeat(n));
    for (key, value, want) in [
        ("file", json!("../x"), "shards[0].file: \"../x\" is not the name of a file in the dump"),
        ("file", json!("/x"), "shards[0].file: \"/x\" is not the name"),
        ("file", json!("x/"), "shards[0].file: \"x/\" is not the name"),
        ("file", json!(""), "shards[0].file: \"\" is not the name"),
        ("hash", digits(63, "a"), "shards[0].hash: \"aaa"),
        ("hash", digits(64, "g"), "shards[0].hash: \"ggg"),
        ("crc32", digits(7, "a"), "shards[0].crc32: \"aaaaaaa\" is not 8 hexadecimal digits"),
        ("crc32", digits(8, "g"), "shards[0].crc32: \"gggg"),
        ("crc32", json!(7), "shards[0].crc32: is not a string"),
        (
            "first_prompt",
            json!(1),
            "shards: shard-00000.safetensors begins at prompt 1 where 0 is next: leaves a gap",
        ),
        ("n_prompts", json!(max), "n_prompts: is 3, the shards have 9223372036854775807"),
        (
            "n_prompts",
            json!(max as u64 + 1),
            "shards[0].n_prompts: 9223372036854775808 is not a whole",
        ),
    ] {
        let change = |folder: &Path| edit_manifest(folder, |all| all["shards"][0][key] = value);
        refused("manifest.json", want, change);
    }
    for (key, value, want) in [
        ("n_active", json!(5), "feature: has shape [6], the manifest says [5] (n_active)"),
        ("bytes", json!(10), "file: has "),
        ("hash", digits(64, "0"), "file: has sha256 "),
        ("crc32", digits(8, "0"), "crc32: is "),
    ] {
        let change = |folder: &Path| edit_manifest(folder, |all| all["shards"][0][key] = value);
        refused(SHARD, want, change);
    }
}

#[test]
fn manifests_that_are_none() {
    for text in ["", "[]", "{", "null"] {
        let change = |folder: &Path| std::fs::write(folder.join("manifest.json"), text).unwrap();
        refused("manifest.json", "file: is not a JSON object", change);
    }
    refused("manifest.json", "file: of 33554433 bytes exceeds the 33554432", |folder| {
        let file = std::fs::File::create(folder.join("manifest.json")).unwrap();
        file.set_len((1 << 25) + 1).unwrap();
    });
    // The longest one is read, and is no JSON.
    refused("manifest.json", "file: is not a JSON object", |folder| {
        let file = std::fs::File::create(folder.join("manifest.json")).unwrap();
        file.set_len(1 << 25).unwrap();
    });
    refused("manifest.json", "file: is missing: the folder is not a feature dump", |folder| {
        std::fs::remove_file(folder.join("manifest.json")).unwrap();
    });
    let nowhere = Path::new("/nowhere/at/all");
    assert!(matches!(Dump::open(nowhere), Err(Error::Io { .. })));
}

#[test]
fn manifests_that_were_changed() {
    let sealed = |name: &'static str, digit: &'static str| {
        move |folder: &Path| {
            let path = folder.join("manifest.json");
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.strip_suffix('}').unwrap();
            let line = format!("{text},\n \"{name}\": \"{}\"\n}}", digit.repeat(64));
            std::fs::write(path, line).unwrap();
        }
    };
    refused("manifest.json", "checksum: is \"0000", sealed("checksum", "0"));
    let want = "checksum: another name stands in its place";
    refused("manifest.json", want, sealed("checksu-", "0"));
    let folder = tempfile::tempdir().unwrap();
    for (name, digit) in [("another name", "0"), ("some-text", "0"), ("checksu-", "x")] {
        small(folder.path());
        sealed(name, digit)(folder.path());
        read_all(folder.path()).unwrap(); // of others
    }
    let path = folder.path().join("manifest.json");
    small(folder.path());
    let text = std::fs::read_to_string(&path).unwrap();
    let text = format!("{},\n ", text.strip_suffix('}').unwrap());
    let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&path, format!("{text}\"checksum\": \"{hash}\"\n}}")).unwrap();
    read_all(folder.path()).unwrap();
}

#[test]
fn several_shards() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = vec![(0, 1, 1.0, 0.5)];
    write_dump(folder.path(), &vec![prompt; 4], (3, 7), &[1, 1], Store::F32);
    (0..3).for_each(|i| seal(folder.path(), i));
    // The order in the manifest does not matter, nor how a hash is spelt.
    edit_manifest(folder.path(), |all| {
        all["shards"].as_array_mut().unwrap().reverse();
        let hash = all["shards"][0]["hash"].as_str().unwrap().to_uppercase();
        all["shards"][0]["hash"] = json!(hash);
    });
    let dump = Dump::open(folder.path()).unwrap();
    assert_eq!(dump.entries(0, 4, &mut |_, _| Ok(())).unwrap().prompt_ptr, [0, 1, 2, 3, 4]);
    dump.verify(Some(&[2; 4]), &mut |_, _| Ok(())).unwrap();
    assert_eq!(dump.folder(), folder.path());

    edit_shard(folder.path(), 2, |columns| columns.retain(|column| column.name != "attribution"));
    let error = Dump::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("attribution: this shard lacks it, those before have"), "{error}");
    (0..2).for_each(|i| {
        edit_shard(folder.path(), i, |columns| columns.retain(|c| c.name != "attribution"));
    });
    let dump = Dump::open(folder.path()).unwrap();
    assert!(!dump.has_attribution());
    assert_eq!(dump.entries(0, 4, &mut |_, _| Ok(())).unwrap().attribution, None);
    assert_eq!(dump.entries_of(&[0], &mut |_, _| Ok(())).unwrap().attribution, None);
    assert_eq!(dump.summary(&mut |_, _| Ok(())).unwrap().n_zero, 0);

    for (change, want) in [
        (json!(0), "begins at prompt 0 where 1 is next: overlaps the one before it"),
        (json!(2), "begins at prompt 2 where 1 is next: leaves a gap"),
    ] {
        edit_manifest(folder.path(), |all| all["shards"][0]["first_prompt"] = change);
        let error = Dump::open(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(want), "{error}");
    }
    edit_manifest(folder.path(), |all| all["shards"][1] = all["shards"][0].clone());
    let error = Dump::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("shards[1].file: shard-00002.safetensors is listed twice"), "{error}");
}

#[test]
fn the_largest_shape_and_no_shards() {
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &[], (2, 1 << 31), &[], Store::F32);
    edit_manifest(folder.path(), |all| all["shards"] = json!([]));
    let dump = Dump::open(folder.path()).unwrap();
    assert_eq!((dump.n_ids(), dump.n_prompts(), dump.n_active()), (1 << 32, 0, 0));
    assert!(dump.has_attribution());
    assert_eq!(dump.entries(0, 0, &mut |_, _| Ok(())).unwrap(), entries(&[]));
    edit_manifest(folder.path(), |all| all["n_features"] = json!((1u64 << 31) + 1));
    assert!(Dump::open(folder.path()).is_err());
}

#[test]
fn lying_columns() {
    let (nan, inf) = (f32::NAN.to_le_bytes(), f32::NEG_INFINITY.to_le_bytes());
    let ptr = |values: [i64; 4]| numbers(&values);
    for (name, at, bytes, want) in [
        ("prompt_ptr", 0, ptr([1, 3, 4, 6]), "prompt_ptr: runs from 1 to 6, must be 0 to 6"),
        ("prompt_ptr", 0, ptr([0, 3, 4, 5]), "prompt_ptr: runs from 0 to 5, must be 0 to 6"),
        ("prompt_ptr", 0, ptr([0, 4, 3, 6]), "prompt_ptr: falls from 4 to 3 at 1"),
        ("prompt_ptr", 0, ptr([0, -7, 3, 6]), "prompt_ptr: falls from -7 to 3 at 1"),
        ("feature", 20, 21u32.to_le_bytes().into(), "feature: 21 at entry 5 is outside [0, 21)"),
        (
            "feature",
            0,
            9u32.to_le_bytes().into(),
            "feature: (feature, position) (4, 0) at entry 1 of prompt 0 follows (9, 1): it is out of order",
        ),
        (
            "position",
            4,
            0u16.to_le_bytes().into(),
            "feature: (feature, position) (4, 0) at entry 2 of prompt 0 follows (4, 0): it is there twice",
        ),
        (
            "feature",
            16,
            20u32.to_le_bytes().into(),
            "feature: (feature, position) (20, 5) at entry 5 of prompt 2 ",
        ),
        ("activation", 12, nan.into(), "activation: NaN at entry 3 is not finite"),
        ("activation", 20, inf.into(), "activation: -inf at entry 5 is not finite"),
        ("activation", 12, [nan, inf].concat(), "activation: NaN at entry 3 is not finite"),
        ("attribution", 0, inf.into(), "attribution: -inf at entry 0 is not finite"),
        ("position", 4, 3u16.to_le_bytes().into(), "position: 3 in prompt 0, which has 3 tokens"),
        ("position", 6, 4u16.to_le_bytes().into(), "position: 4 in prompt 1, which has 4 tokens"),
    ] {
        let change = |folder: &Path| {
            edit_columns(folder, |columns| {
                changed(columns, name).data[at..at + bytes.len()].copy_from_slice(&bytes)
            });
            // So that only what follows it is wrong.
            if want.contains("(20, 5) at entry 5") {
                edit_columns(folder, |columns| changed(columns, "position").data[8] = 6);
            }
        };
        refused(SHARD, want, change);
    }
}

#[test]
fn the_first_pair_out_of_order_is_named() {
    for (pairs, want) in [
        (
            vec![(1, 0), (1, 2), (3, 0), (3, 1), (2, 5), (0, 0)],
            "(2, 5) at entry 4 of prompt 0 follows (3, 1): it is out",
        ),
        (
            vec![(1, 5), (2, 0), (2, 3), (2, 3), (2, 1)],
            "(2, 3) at entry 3 of prompt 0 follows (2, 3): it is there twice",
        ),
        (vec![(0, 9), (1, 4), (1, 3)], "(1, 3) at entry 2 of prompt 0 follows (1, 4): it is out"),
        // Nothing but features that fall while positions rise.
        (vec![(2, 0), (1, 1), (0, 2)], "(1, 1) at entry 1 of prompt 0 follows (2, 0): it is out"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let prompt = pairs.iter().map(|&(f, p)| (f, p, 1.0, 0.5)).collect();
        write_dump(folder.path(), &[prompt], (N_LAYERS, N_FEATURES), &[], Store::F32);
        let dump = Dump::open(folder.path()).unwrap();
        let error = dump.entries(0, 1, &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains(want), "{error} / {want}");
    }
}

#[test]
fn lying_layouts() {
    for (name, dtype, shape, want) in [
        ("feature", "F32", vec![6], "feature: has dtype F32, must be U32"),
        ("position", "I16", vec![6], "position: has dtype I16, must be U16 or U32"),
        ("activation", "I32", vec![6], "activation: has dtype I32, must be F16 or BF16 or F32"),
        ("attribution", "I32", vec![6], "attribution: has dtype I32, must be F32"),
        ("feature", "U32", vec![6, 1], "feature: has shape [6, 1], the manifest says [6]"),
        ("feature", "U16", vec![12], "feature: has shape [12], the manifest says [6]"),
        ("prompt_ptr", "U64", vec![4], "prompt_ptr: is U64 of shape [4], must be I64 of shape [4]"),
        ("prompt_ptr", "I64", vec![4, 1], "prompt_ptr: is I64 of shape [4, 1], must be I64 of"),
        ("attribution", "F32", vec![2, 3], "attribution: has shape [2, 3], the manifest says [6]"),
    ] {
        refused(SHARD, want, |folder| {
            edit_columns(folder, |columns| {
                let column = changed(columns, name);
                (column.dtype, column.shape) = (dtype.to_owned(), shape);
            });
        });
    }
    for name in ["prompt_ptr", "feature", "position", "activation"] {
        let change = |folder: &Path| edit_columns(folder, |all| all.retain(|c| c.name != name));
        refused(SHARD, &format!("{name}: is missing; the file has ["), change);
    }
    refused(
        SHARD,
        "prompt_ptr: is I64 of shape [5], must be I64 of shape [4] (n_prompts + 1)",
        |f| {
            edit_columns(f, |columns| {
                let column = changed(columns, "prompt_ptr");
                (column.shape, column.data) = (vec![5], numbers(&[0, 3, 4, 6, 6]));
            });
        },
    );
}

#[test]
fn numbers_have_the_types_of_safetensors() {
    let size = |dtype| FloatType::parse(dtype).map(FloatType::size);
    let names = ["F16", "BF16", "F32", "F64", "f32"];
    assert_eq!(names.map(size), [Some(2), Some(2), Some(4), None, None]);
}

#[test]
fn wide_positions_are_read_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let widen = |wide: [u32; 6]| {
        edit_columns(folder.path(), |columns| {
            let column = changed(columns, "position");
            column.dtype = "U32".to_owned();
            column.data = wide.iter().flat_map(|p| p.to_le_bytes()).collect();
        });
        Dump::open(folder.path()).unwrap()
    };
    let dump = widen([1, 0, 70_000, 3, 0, 5]);
    assert_eq!(dump.entries(1, 2, &mut |_, _| Ok(())).unwrap().position, [3, 0, 5]);
    let of = dump.entries_of(&[4], &mut |_, _| Ok(())).unwrap();
    assert_eq!((of.position, of.prompt), (vec![0, 70_000], vec![0, 0]));
    assert_eq!(dump.summary(&mut |_, _| Ok(())).unwrap().last_position, Some(70_000));
    let error =
        widen([1, 70_000, 5, 3, 0, 5]).entries(0, 3, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(
        error.contains("(4, 5) at entry 2 of prompt 0 follows (4, 70000): it is out"),
        "{error}"
    );
}

#[test]
fn calls_that_ask_for_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let dump = Dump::open(folder.path()).unwrap();
    let message = |error: Error| {
        assert!(matches!(error, Error::Argument(_)), "{error}");
        error.to_string()
    };
    for (first, n) in [(0, 4), (3, 1), (4, 0), (u64::MAX, 1)] {
        let want = format!("{n} prompts from {first} on are outside the 3 prompts of the dump");
        assert_eq!(message(dump.entries(first, n, &mut |_, _| Ok(())).unwrap_err()), want);
    }
    assert_eq!(dump.entries(3, 0, &mut |_, _| Ok(())).unwrap().prompt_ptr, [0]);
    for id in [-1, 21, 1 << 32] {
        let error = dump.entries_of(&[0, id], &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(message(error), format!("feature id {id} is outside [0, 21)"));
    }
    let error = dump.verify(Some(&[9, 9]), &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(message(error), "2 prompt lengths for 3 prompts");
    let stop = &mut |_, _| Err(Error::Interrupted);
    assert!(matches!(dump.entries_of(&[0], stop), Err(Error::Interrupted)));
    assert!(matches!(dump.summary(stop), Err(Error::Interrupted)));
    assert!(matches!(dump.verify(None, stop), Err(Error::Interrupted)));
}
