use super::keys::{Certificate, Keys, platform_key, read_certificate, signatures};
use super::*;
use proptest::prelude::*;

fn variable(name: &str, data: &[u8]) -> Variable {
    Variable {
        name: name.into(),
        vendor: guid::GLOBAL_VARIABLE,
        attributes: Attributes::RUNTIME,
        time: [0; 16],
        count: 0,
        data: data.to_vec(),
    }
}

#[test]
fn guids_as_they_are_written() {
    let text = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
    assert_eq!(Guid::parse(text), Some(guid::GLOBAL_VARIABLE));
    assert_eq!(guid::GLOBAL_VARIABLE.to_string(), text);
    for text in [
        "",
        "8be4df61",
        "8be4df61-93ca-11d2-aa0d-00e098032b8g",
        "8be4df6-193ca-11d2-aa0d-00e098032b8c",
    ] {
        assert_eq!(Guid::parse(text), None);
    }
}

/// Headers as stock firmware writes them (seen in a distribution's `AAVMF_VARS.ms.fd`).
#[test]
fn headers_are_the_firmwares_own() {
    let volume = Store::default().to_volume().unwrap();
    assert_eq!(volume.len(), 0xc_0000);
    assert_eq!(
        volume[0x20..0x48],
        [
            0, 0, 0x0c, 0, 0, 0, 0, 0, b'_', b'F', b'V', b'H', 0x36, 0x0e, 0, 0, 0x48, 0, 0xf8,
            0xf8, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0
        ]
    );
    assert_eq!(
        volume[0x58..0x64],
        [0xb8, 0xff, 3, 0, 0x5a, 0xfe, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        volume[0x4_0010..0x4_0020],
        [
            0x5b, 0xe7, 0xc6, 0x86, 0xfe, 0xff, 0xff, 0xff, 0xe0, 0xff, 3, 0, 0, 0, 0, 0
        ]
    );
    assert!(volume[0x64..0x4_0000].iter().all(|byte| *byte == 0xff));
}

#[test]
fn states_of_variables() {
    let mut store = Store::default();
    store.put(variable("BootOrder", &[1, 0]));
    store.put(variable("Timeout", &[5, 0]));
    let volume = store.to_volume().unwrap();
    // The second starts after 60 bytes of header, 20 of name, 2 of data, at a multiple of four.
    let (first, second) = (0x64, 0x64 + 84);
    let parse = |changes: &[(usize, u8)]| {
        let mut volume = volume.clone();
        changes
            .iter()
            .for_each(|(at, state)| volume[at + 2] = *state);
        let store = Store::parse(&volume).unwrap();
        store
            .variables()
            .iter()
            .map(|v| v.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(parse(&[]), ["BootOrder", "Timeout"]);
    for deleted in [0x3d, 0x3c] {
        assert_eq!(parse(&[(first, deleted)]), ["Timeout"]);
    }
    assert_eq!(
        parse(&[(first, 0x3e)]),
        ["Timeout", "BootOrder"],
        "its successor never came"
    );
    assert_eq!(parse(&[(second, 0x7f)]), ["BootOrder"], "never completed");
}

#[test]
fn what_is_no_store() {
    let error = |image: &[u8]| Store::parse(image).unwrap_err().to_string();
    assert!(error(&[]).contains("does not begin with a firmware volume"));
    assert!(error(&[1; 0xc_0000]).contains("does not begin"));
    let good = Store::default().to_volume().unwrap();
    let broken = |at: usize| {
        let mut volume = good.clone();
        volume[at] ^= 1;
        error(&volume)
    };
    assert!(broken(0x10).contains("not for variables"));
    assert!(broken(0x32).contains("checksum"));
    assert!(broken(0x48).contains("authenticated"));
    assert!(error(&good[..0x1_0000]).contains("cut short"));
    // As packages deliver it, for firmware to format.
    assert_eq!(Store::parse(&vec![0; 0xc_0000]), Ok(Store::default()));
    let mut full = Store::default();
    full.put(variable("x", &vec![0; 300 << 10]));
    assert!(matches!(full.to_volume(), Err(StoreError::Full(_))));
    let mut unnamed = Store::default();
    unnamed.put(variable("", &[]));
    assert!(matches!(unnamed.to_volume(), Err(StoreError::Name(_))));
}

#[test]
fn keys_make_user_mode() {
    let certificate = |n: u8| Certificate {
        owner: guid::MICROSOFT,
        der: vec![n; 40],
    };
    let keys = Keys {
        platform: Some(platform_key().unwrap()),
        exchange: vec![certificate(1), certificate(2)],
        allowed: vec![certificate(3)],
        forbidden: Vec::new(),
    };
    let mut store = Store::default();
    store.put(variable("Timeout", &[5, 0]));
    keys.enroll(&mut store);
    keys.enroll(&mut store);
    let back = Store::parse(&store.to_volume().unwrap()).unwrap();
    assert_eq!(back, store);
    let names: Vec<_> = back.variables().iter().map(|v| v.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "Timeout",
            "db",
            "KEK",
            "PK",
            "SecureBootEnable",
            "CustomMode"
        ]
    );
    let kek = back.get("KEK", guid::GLOBAL_VARIABLE).unwrap();
    assert_eq!(kek.attributes.0, 0x27);
    let expected: Vec<_> = [1, 2]
        .map(|n| (guid::CERT_X509, guid::MICROSOFT, vec![n; 40]))
        .into();
    assert_eq!(signatures(&kek.data), Some(expected));
}

/// OpenSSL reads the platform key, where there is one: EDK II uses it too.
#[test]
fn the_platform_key_is_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pk.der");
    let key = platform_key().unwrap();
    std::fs::write(&path, &key.der).unwrap();
    assert_eq!(read_certificate(&path).unwrap(), key.der);
    assert_ne!(platform_key().unwrap().der, key.der);
    let Ok(output) = std::process::Command::new("openssl")
        .args([
            "x509", "-inform", "DER", "-noout", "-subject", "-pubkey", "-in",
        ])
        .arg(&path)
        .output()
    else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("Dormer platform key") && text.contains("BEGIN PUBLIC KEY"),
        "{text}"
    );
}

#[test]
fn certificates_in_pem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pem");
    let key = platform_key().unwrap();
    let base64 = data_encoding::BASE64.encode(&key.der);
    let pem =
        format!("text before\n-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    std::fs::write(&path, pem).unwrap();
    assert_eq!(read_certificate(&path).unwrap(), key.der);
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    assert!(read_certificate(&path).is_err());
    let error = Keys::microsoft(&[folder.path().into()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("ms-kek-2011.pem"), "{error}");
}

proptest! {
    #[test]
    fn any_variables_round_trip(given in prop::collection::vec(
        ("[A-Za-z0-9]{1,20}", prop::collection::vec(any::<u8>(), 1..200), any::<u32>()), 0..20)) {
        let mut store = Store::default();
        for (name, data, attributes) in given {
            store.put(Variable { attributes: Attributes(attributes), ..variable(&name, &data) });
        }
        prop_assert_eq!(Store::parse(&store.to_volume().unwrap()), Ok(store));
    }

    /// Damage is told, or read around; nothing breaks.
    #[test]
    fn any_damage(at in 0usize..0x400, with in prop::collection::vec(any::<u8>(), 1..16)) {
        let mut store = Store::default();
        store.put(variable("BootOrder", &[1, 0]));
        store.put(variable("db", &[7; 100]));
        let mut volume = store.to_volume().unwrap();
        volume[at..at + with.len()].copy_from_slice(&with);
        let _ = Store::parse(&volume);
    }

    #[test]
    fn any_signatures(data in prop::collection::vec(any::<u8>(), 0..200), size in 0u32..80) {
        let mut data = data;
        if data.len() > 28 {
            data[16..20].copy_from_slice(&size.to_le_bytes());
            data[20..24].fill(0);
        }
        let _ = signatures(&data);
    }
}
