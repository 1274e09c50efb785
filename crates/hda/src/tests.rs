use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use audio::{Audio, Driver, Options};
use device::{Access, Clock, Device, Dma, Line, Msi};
use memory::Ram;
use parking_lot::Mutex;
use pci::Function;
use proptest::prelude::*;

use super::*;

const RAM: u64 = 0x4000_0000;
const CORB: u64 = RAM + 0x1000;
const RIRB: u64 = RAM + 0x2000;
const POSITIONS: u64 = RAM + 0x3000;
const BDL: u64 = RAM + 0x4000;
const SOUND: u64 = RAM + 0x1_0000;
/// The first output stream.
const OUT: u64 = register::SD0 + 4 * sd::SIZE;
const IN: u64 = register::SD0;

/// A small driver.
struct Rig {
    hda: Arc<Hda>,
    dma: Dma,
    line: Arc<AtomicBool>,
    messages: Arc<Mutex<Vec<Msi>>>,
    corbwp: u8,
}

impl Rig {
    fn new(model: CodecModel, options: &Options) -> Rig {
        let ram = Ram::new(&[(RAM, 0x10_0000)]).unwrap();
        let clock = Clock::new();
        let config = Config {
            name: "hda".into(),
            chip: Chip::Ich6,
            msi: true,
        };
        let hda = Hda::new(config, ram.dma(), &clock);
        let audio = Audio::open(options).unwrap();
        let codec = CodecConfig { model, mixer: true };
        assert_eq!(hda.attach(None, "codec", codec.clone(), &audio), Ok(0));
        assert_eq!(
            hda.attach(Some(0), "codec", codec.clone(), &audio),
            Err(AttachError::Taken(0))
        );
        assert_eq!(
            hda.attach(Some(15), "codec", codec, &audio),
            Err(AttachError::NoSuchAddress(15))
        );
        let messages = Arc::new(Mutex::new(Vec::new()));
        let sink = messages.clone();
        let (line, level) = Line::probe();
        let endpoint = hda.endpoint();
        endpoint.connect(8, Arc::new(move |m: Msi| sink.lock().push(m)), line);
        hda.endpoint().write_config(4, 2, 6);
        Rig {
            hda,
            dma: ram.dma(),
            line: level,
            messages,
            corbwp: 0,
        }
    }

    fn silent(model: CodecModel) -> Rig {
        let mut rig = Rig::new(model, &Options::new("none", Driver::None));
        rig.start();
        rig
    }

    fn get(&self, offset: u64, width: u8) -> u32 {
        let access = Access::new(offset, width);
        (self.hda.read_bar(0, access) & access.mask()) as u32
    }

    fn set(&self, offset: u64, width: u8, value: u32) {
        self.hda
            .write_bar(0, Access::new(offset, width), value.into());
    }

    /// Takes the link out of reset and sets the rings up.
    fn start(&mut self) {
        self.set(register::GCTL, 4, 0);
        assert_eq!(self.get(register::GCTL, 4), 0);
        self.set(register::GCTL, 4, 1);
        assert_eq!(self.get(register::WAKEEN + 2, 2), 1, "codec 0 is there");
        self.set(register::WAKEEN + 2, 2, 0xffff);
        assert_eq!(self.get(register::WAKEEN + 2, 2), 0);
        for (base, at, size) in [
            (register::CORBLBASE, CORB, register::CORBCTL + 2),
            (register::RIRBLBASE, RIRB, register::RIRBCTL + 2),
        ] {
            self.set(base, 4, at as u32);
            self.set(base + 4, 4, 0);
            assert_eq!(self.get(size, 1), 0x42);
        }
        self.set(register::CORBWP + 2, 2, 0x8000);
        assert_eq!(self.get(register::CORBWP + 2, 2), 0x8000);
        self.set(register::CORBWP + 2, 2, 0);
        assert_eq!(self.get(register::CORBWP + 2, 2), 0);
        self.set(register::RIRBWP, 2, 0x8000);
        self.set(register::RIRBWP + 2, 2, 1);
        self.set(register::CORBCTL, 1, 2);
        self.set(register::RIRBCTL, 1, 3);
        self.set(register::INTCTL, 4, 0xc000_00ff);
        self.corbwp = 0;
    }

    /// A verb by the rings: its response.
    fn verb(&mut self, node: u32, verb: u32, payload: u32) -> u32 {
        self.corbwp = self.corbwp.wrapping_add(1);
        let at = CORB + u64::from(self.corbwp) * 4;
        self.dma
            .write_u32(at, node << 20 | verb << 8 | payload)
            .unwrap();
        self.set(register::CORBWP, 2, self.corbwp.into());
        assert_eq!(self.get(register::CORBWP + 2, 2), u32::from(self.corbwp));
        let at = RIRB + u64::from(self.get(register::RIRBWP, 2)) * 8;
        assert_eq!(self.dma.read_u32(at + 4).unwrap() & 0x1f, 0);
        self.set(register::RIRBCTL + 1, 1, 5);
        self.dma.read_u32(at).unwrap()
    }

    /// Sets both directions' converters and pins up, at 0 dB.
    fn open(&mut self) {
        self.verb(1, 0x705, 0);
        self.verb(2, 0x706, 0x10);
        self.verb(3, 0x707, 0x40);
        self.verb(4, 0x706, 0x20);
        self.verb(5, 0x707, 0x20);
    }

    /// A list of buffers one behind the other from `SOUND`, each with an interrupt at its end.
    fn stream(&self, at: u64, tag: u32, format: u16, buffers: &[u32]) {
        self.set(at, 1, 1);
        assert_eq!(self.get(at, 1) & 1, 1);
        self.set(at, 1, 0);
        assert_eq!(self.get(at, 1) & 1, 0);
        let mut address = SOUND;
        for (i, length) in buffers.iter().enumerate() {
            let entry = BDL + i as u64 * 16;
            self.dma.write_u64(entry, address).unwrap();
            self.dma.write_u32(entry + 8, *length).unwrap();
            self.dma.write_u32(entry + 12, 1).unwrap();
            address += u64::from(*length);
        }
        self.set(at + sd::BDPL, 4, BDL as u32);
        self.set(at + sd::BDPU, 4, 0);
        self.set(at + sd::CBL, 4, buffers.iter().sum());
        self.set(at + sd::LVI, 2, buffers.len() as u32 - 1);
        self.set(at + sd::FIFOS + 2, 2, format.into());
        self.set(at + 2, 1, tag << 4);
    }

    /// Waits for the end of a buffer, and acknowledges it.
    fn buffer_end(&self, at: u64) {
        let start = Instant::now();
        while self.get(at + 3, 1) & 4 == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no end of a buffer"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
        self.set(at + 3, 1, 4);
    }
}

#[test]
fn is_who_it_is() {
    let rig = Rig::silent(CodecModel::Duplex);
    let config = |offset, width| rig.hda.endpoint().read_config(offset, width);
    assert_eq!(config(0, 4), 0x2668_8086);
    assert_eq!(config(8, 4), 0x0403_0001);
    assert_eq!(config(0x2c, 4), 0x1100_1af4);
    assert_eq!(config(0x40, 1), 1);
    assert_eq!(rig.get(0, 4), 0x0100_4401);
    rig.hda.reset();
    assert_eq!(rig.get(register::GCTL, 4), 0);
    // In reset nothing else can be written.
    rig.set(register::INTCTL, 4, 0xffff_ffff);
    assert_eq!(rig.get(register::INTCTL, 4), 0);
}

#[test]
fn verbs_go_around_the_rings_and_interrupt() {
    let mut rig = Rig::silent(CodecModel::Micro);
    for _ in 0..300 {
        assert_eq!(rig.verb(0, 0xf00, 0), 0x1af4_0032);
    }
    assert_eq!(rig.verb(5, 0xf1c, 0), 0x90a7_0120);
    assert!(!rig.line.load(Ordering::SeqCst));
    // Several at once, one interrupt a pair.
    rig.set(register::RIRBWP + 2, 2, 2);
    for i in 1..=4u8 {
        let at = CORB + u64::from(rig.corbwp.wrapping_add(i)) * 4;
        rig.dma.write_u32(at, 0xf_0000).unwrap();
    }
    let before = rig.get(register::RIRBWP, 2) as u8;
    rig.corbwp = rig.corbwp.wrapping_add(4);
    rig.set(register::CORBWP, 2, rig.corbwp.into());
    assert_eq!(rig.get(register::RIRBWP, 2) as u8, before.wrapping_add(4));
    assert!(rig.line.load(Ordering::SeqCst));
    assert_eq!(rig.get(register::INTSTS, 4), 0xc000_0000);
    rig.set(register::RIRBCTL + 1, 1, 1);
    assert!(!rig.line.load(Ordering::SeqCst));
    // A command for a codec that is not there has no response.
    rig.corbwp = rig.corbwp.wrapping_add(1);
    let at = CORB + u64::from(rig.corbwp) * 4;
    rig.dma.write_u32(at, 3 << 28 | 0xf_0000).unwrap();
    rig.set(register::CORBWP, 2, rig.corbwp.into());
    assert_eq!(rig.get(register::RIRBWP, 2) as u8, before.wrapping_add(4));
    // A ring that is no memory.
    rig.set(register::CORBCTL, 1, 0);
    rig.set(register::CORBLBASE, 4, 0x1000);
    rig.set(register::CORBCTL, 1, 3);
    rig.set(register::CORBWP, 2, u32::from(rig.corbwp.wrapping_add(1)));
    assert_eq!(rig.get(register::CORBCTL, 4) & 0xffff, 0x0101);
    assert!(rig.line.load(Ordering::SeqCst));
}

#[test]
fn commands_go_by_the_registers_too() {
    let rig = Rig::silent(CodecModel::Output);
    rig.set(register::CORBCTL, 1, 0);
    rig.set(register::IC, 4, 0xf_0000);
    rig.set(register::ICS, 2, 1);
    assert_eq!(rig.get(register::ICS, 2), 2);
    assert_eq!(rig.get(register::IR, 4), 0x1af4_0012);
    rig.set(register::IC, 4, 5 << 28 | 0xf_0000);
    rig.set(register::ICS, 2, 3);
    assert_eq!(rig.get(register::ICS, 2), 0, "nobody there");
}

#[test]
fn what_is_played_is_what_was_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new("snd", Driver::Wav);
    let path = folder.path().join("out.wav");
    options.path = Some(path.display().to_string());
    let mut rig = Rig::new(CodecModel::Duplex, &options);
    rig.start();
    rig.open();
    // MSI on, to any address.
    let msi = rig.hda.endpoint().capability(5, 0).unwrap();
    rig.hda.endpoint().write_config(msi + 4, 4, 0x0802_0040);
    rig.hda.endpoint().write_config(msi + 2, 2, 1);
    rig.set(register::DPLBASE, 4, POSITIONS as u32 | 1);

    // Four buffers of 10 ms, filled again as they end: 20 of them.
    let sample = |i: u32| (i * 37) as i16;
    let fill = |rig: &Rig, buffer: u32, number: u32| {
        let samples = (number * 960..(number + 1) * 960).flat_map(|i| sample(i).to_le_bytes());
        let bytes: Vec<u8> = samples.collect();
        let at = SOUND + u64::from(buffer) * 1920;
        rig.dma.write(at, &bytes).unwrap();
    };
    for i in 0..4 {
        fill(&rig, i, i);
    }
    rig.stream(OUT, 1, 0x0011, &[1920; 4]);
    let ticks = rig.get(register::WALCLK, 4);
    let start = Instant::now();
    rig.set(OUT, 1, 0x1e);
    assert_eq!(rig.get(OUT + 3, 1) & 0x20, 0x20, "FIFO ready");
    for number in 0..20 {
        rig.buffer_end(OUT);
        let position = rig.get(OUT + sd::LPIB, 4);
        assert!(position < 7680);
        fill(&rig, number % 4, number + 4);
    }
    let elapsed = start.elapsed().as_secs_f64();
    assert!(
        (0.195..2.0).contains(&elapsed),
        "{elapsed} s for 200 ms of sound"
    );
    let ticks = f64::from(rig.get(register::WALCLK, 4).wrapping_sub(ticks)) / 24e6;
    assert!((ticks - elapsed).abs() < 0.1);
    let written = rig.dma.read_u32(POSITIONS + 4 * 8).unwrap();
    rig.set(OUT, 1, 0);
    let position = rig.get(OUT + sd::LPIB, 4);
    assert!(position.wrapping_sub(written) % 7680 < 7680 && position.is_multiple_of(4));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.get(OUT + sd::LPIB, 4), position, "it stands still");
    assert!(rig.messages.lock().len() >= 20 && !rig.line.load(Ordering::SeqCst));

    drop(rig);
    let mut file = hound::WavReader::open(&path).unwrap();
    assert_eq!(file.spec().sample_rate, 48000);
    let played: Vec<i16> = file.samples().map(Result::unwrap).collect();
    assert!(played.len() >= 20 * 960);
    let expected: Vec<i16> = (0..20 * 960).map(sample).collect();
    let wrong = played.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(wrong, None);
}

#[test]
fn a_driver_that_is_late_is_waited_for() {
    let mut rig = Rig::silent(CodecModel::Output);
    rig.open();
    rig.stream(OUT, 1, 0x0011, &[1920; 4]);
    rig.set(OUT, 1, 0x1e);
    std::thread::sleep(Duration::from_millis(60));
    // The end of the first buffer is not acknowledged: the second does not end.
    let position = rig.get(OUT + sd::LPIB, 4);
    assert!((1920..3840).contains(&position), "{position}");
    assert!(rig.line.load(Ordering::SeqCst));
    rig.buffer_end(OUT);
    rig.buffer_end(OUT);
    // A driver that asked for no interrupts is not.
    rig.set(OUT, 1, 0x02);
    let start = Instant::now();
    let mut wraps = 0;
    let mut last = 0;
    while wraps < 2 {
        let now = rig.get(OUT + sd::LPIB, 4);
        wraps += u32::from(now < last);
        last = now;
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn what_is_recorded_is_what_was_heard() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in.wav");
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 48000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(&source, spec).unwrap();
    for i in 0..2000i16 {
        writer.write_sample(i * 16).unwrap();
    }
    writer.finalize().unwrap();
    let mut options = Options::new("snd", Driver::Wav);
    options.path = Some(folder.path().join("out.wav").display().to_string());
    options.input = Some(source.display().to_string());
    let mut rig = Rig::new(CodecModel::Micro, &options);
    rig.start();
    rig.open();
    rig.stream(IN, 2, 0x0031, &[8000, 8000]);
    rig.set(IN, 1, 0x06);
    rig.buffer_end(IN);
    rig.set(IN, 1, 0);
    let mut bytes = vec![0; 8000];
    rig.dma.read(SOUND, &mut bytes).unwrap();
    for (i, sample) in bytes.chunks_exact(4).enumerate() {
        let value = i32::from_le_bytes(sample.try_into().unwrap());
        assert_eq!(value, (i as i32 * 16) << 16, "{i}");
    }
}

#[test]
fn a_list_without_memory_stops_the_stream() {
    for (address, lengths) in [(BDL, [0u32; 4]), (0x1000, [64; 4])] {
        let mut rig = Rig::silent(CodecModel::Output);
        rig.open();
        rig.stream(OUT, 1, 0x0011, &lengths);
        rig.set(OUT + sd::BDPL, 4, address as u32);
        rig.set(OUT, 1, 0x12);
        let start = Instant::now();
        while rig.get(OUT + 3, 1) & 0x10 == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no descriptor error"
            );
        }
        assert_eq!(rig.get(OUT, 1) & 2, 0);
        assert!(rig.line.load(Ordering::SeqCst));
    }
}

#[test]
fn streams_held_by_ssync_begin_together() {
    let mut rig = Rig::silent(CodecModel::Output);
    rig.open();
    rig.stream(OUT, 1, 0x0011, &[1920; 4]);
    rig.set(register::SSYNC, 4, 0x10);
    rig.set(OUT, 1, 0x02);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.get(OUT + sd::LPIB, 4), 0);
    rig.set(register::SSYNC, 4, 0);
    rig.buffer_end(OUT);
}

#[test]
fn a_saved_state_is_the_state() {
    let mut rig = Rig::silent(CodecModel::Duplex);
    rig.open();
    let saved = rig.hda.state();
    let text = serde_json::to_string(&saved).unwrap();
    let back: HdaState = serde_json::from_str(&text).unwrap();
    assert_eq!(back, saved);
    rig.hda.reset();
    rig.hda.restore(back).unwrap();
    assert_eq!(rig.verb(2, 0xf06, 0), 0x10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a guest writes where, nothing breaks and nothing takes long.
    #[test]
    fn survives_anything(
        memory in prop::collection::vec(any::<u32>(), 256),
        writes in prop::collection::vec((0u64..0x180, 0usize..4, any::<u32>(), 0u8..4), 1..200),
    ) {
        let mut rig = Rig::silent(CodecModel::Duplex);
        rig.open();
        for (i, word) in memory.iter().enumerate() {
            // Some of it points into memory.
            let word = if word & 3 == 0 { RAM as u32 | word & 0xf_ffff } else { *word };
            rig.dma.write_u32(BDL + i as u64 * 4, word).unwrap();
            rig.dma.write_u32(CORB + i as u64 * 4, word).unwrap();
        }
        let start = Instant::now();
        for (offset, width, value, near) in writes {
            let value = match near {
                0 => RAM as u32 | value & 0xf_ff80,
                1 => value & 0x1e,
                _ => value,
            };
            let width = [1, 2, 4, 8][width];
            rig.set(offset, width, value);
            rig.get(offset, width);
            if rig.get(register::GCTL, 4) & 1 == 0 {
                rig.set(register::GCTL, 4, 1);
            }
        }
        prop_assert!(start.elapsed() < Duration::from_secs(10));
    }
}
