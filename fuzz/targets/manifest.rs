//! `manifest.json` as it is, beside two good shards of one prompt each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pie_fast_core::dump::Dump;
use pie_fast_fuzz::{folder, safetensors, use_dump, write};

/// One prompt with the entry (1, 2, 3, 4).
pub fn shard() -> Vec<u8> {
    let ptr = [0i64, 1].iter().flat_map(|x| x.to_le_bytes()).collect();
    safetensors(&[
        ("prompt_ptr", "I64", 2, ptr),
        ("feature", "U32", 1, 1u32.to_le_bytes().to_vec()),
        ("attribution", "F32", 1, 4f32.to_le_bytes().to_vec()),
        ("activation", "F32", 1, 3f32.to_le_bytes().to_vec()),
        ("position", "U16", 1, 2u16.to_le_bytes().to_vec()),
    ])
}

fuzz_target!(
    init: {
        write("a", &shard());
        write("b", &shard());
    },
    |data: &[u8]| {
        write("manifest.json", data);
        if let Ok(dump) = Dump::open(folder()) {
            let manifest = dump.manifest();
            assert!(manifest.n_layers.checked_mul(manifest.n_features).is_some());
            let n: u64 = manifest.shards.iter().map(|shard| shard.n_prompts).sum();
            assert_eq!(n, dump.n_prompts());
            assert!(n <= 2, "there are two shards of one prompt");
            use_dump(&dump);
        }
    }
);
