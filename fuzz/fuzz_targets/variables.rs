//! UEFI variable stores: what is read is written and read again as it was.
#![no_main]

use dormer_firmware::variables::Store;
use dormer_firmware::variables::keys::signatures;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = signatures(data);
    // Over a good volume, so that not every input fails at its head.
    let mut volume = Store::default().to_volume().unwrap();
    volume[0x64..0x64 + data.len().min(4096)].copy_from_slice(&data[..data.len().min(4096)]);
    if let Ok(store) = Store::parse(&volume)
        && let Ok(written) = store.to_volume()
    {
        assert_eq!(Store::parse(&written), Ok(store));
    }
    let _ = Store::parse(data);
});
