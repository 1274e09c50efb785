//! What an output's monitor says of itself: E-EDID (VESA Enhanced EDID 1.4), and DisplayID 1.3 for what it cannot say.

/// A detailed timing: CVT with reduced blanking at 60 Hz (VESA Coordinated Video Timings 1.2, 3.4).
struct Timing {
    width: u32,
    height: u32,
    /// In 10 kHz.
    clock: u32,
    vertical_blank: u32,
    vertical_sync: u32,
}

const HORIZONTAL_BLANK: u32 = 160;
const HORIZONTAL_FRONT: u32 = 48;
const HORIZONTAL_SYNC: u32 = 32;
const VERTICAL_FRONT: u32 = 3;
/// Hertz.
const REFRESH: u64 = 60;
/// The least vertical blanking, in nanoseconds.
const LEAST_BLANK: u64 = 460_000;
/// Of the clock, in 10 kHz: 250 kHz.
const CLOCK_STEP: u64 = 25;

impl Timing {
    fn new(width: u32, height: u32) -> Timing {
        // The sync width tells the aspect ratio.
        let vertical_sync = match (width, height) {
            (w, h) if w * 3 == h * 4 => 4,
            (w, h) if w * 9 == h * 16 => 5,
            (w, h) if w * 10 == h * 16 => 6,
            (w, h) if w * 4 == h * 5 || w * 9 == h * 15 => 7,
            _ => 10,
        };
        let line = (1_000_000_000 / REFRESH - LEAST_BLANK) / u64::from(height).max(1);
        let least = (LEAST_BLANK / line.max(1) + 1) as u32;
        let vertical_blank = least.max(VERTICAL_FRONT + vertical_sync + 6);
        let total = u64::from(width + HORIZONTAL_BLANK) * u64::from(height + vertical_blank);
        let clock = (total * REFRESH / 10_000 / CLOCK_STEP * CLOCK_STEP).max(CLOCK_STEP) as u32;
        Timing {
            width,
            height,
            clock,
            vertical_blank,
            vertical_sync,
        }
    }

    /// Whether the 18 bytes of EDID have room for it.
    fn is_plain(&self) -> bool {
        self.width < 4096 && self.height < 4096 && self.clock < 0x1_0000
    }

    /// Detailed timing descriptor (EDID 3.10.2).
    fn descriptor(&self, millimetres: (u32, u32)) -> [u8; 18] {
        let high = |a: u32, b: u32| ((a >> 8 & 0xf) << 4 | b >> 8 & 0xf) as u8;
        let [clock_low, clock_high, ..] = self.clock.to_le_bytes();
        let (mm_x, mm_y) = (millimetres.0.min(4095), millimetres.1.min(4095));
        [
            clock_low,
            clock_high,
            self.width as u8,
            HORIZONTAL_BLANK as u8,
            high(self.width, HORIZONTAL_BLANK),
            self.height as u8,
            self.vertical_blank as u8,
            high(self.height, self.vertical_blank),
            HORIZONTAL_FRONT as u8,
            HORIZONTAL_SYNC as u8,
            (VERTICAL_FRONT << 4 | self.vertical_sync) as u8,
            0,
            mm_x as u8,
            mm_y as u8,
            high(mm_x, mm_y),
            0,
            0,
            // Digital separate sync, horizontal positive, vertical negative: reduced blanking.
            0x1a,
        ]
    }

    /// Type I detailed timing data block's 20 bytes (DisplayID 4.4.1).
    fn type_1(&self) -> [u8; 20] {
        let word = |value: u32| (value.saturating_sub(1) as u16).to_le_bytes();
        let (clock, width, height) = (
            (self.clock - 1).to_le_bytes(),
            word(self.width),
            word(self.height),
        );
        let blank = (word(HORIZONTAL_BLANK), word(self.vertical_blank));
        // Bit 15 of a front porch is the polarity of its sync: horizontal positive.
        let front = (word(HORIZONTAL_FRONT), word(VERTICAL_FRONT));
        let sync = (word(HORIZONTAL_SYNC), word(self.vertical_sync));
        [
            clock[0],
            clock[1],
            clock[2],
            // Preferred, progressive, aspect ratio not defined.
            0x88,
            width[0],
            width[1],
            blank.0[0],
            blank.0[1],
            front.0[0],
            front.0[1] | 0x80,
            sync.0[0],
            sync.0[1],
            height[0],
            height[1],
            blank.1[0],
            blank.1[1],
            front.1[0],
            front.1[1],
            sync.1[0],
            sync.1[1],
        ]
    }
}

/// Standard timings at 60 Hz (EDID 3.9): width, and the code of the aspect ratio (0: 16:10, 1: 4:3, 2: 5:4, 3: 16:9).
const STANDARD: [(u32, u8); 8] = [
    (1280, 0),
    (1280, 2),
    (1280, 3),
    (1440, 0),
    (1600, 1),
    (1600, 3),
    (1680, 0),
    (1920, 3),
];
/// Established timings I and II: 640×480, 800×600 and 1024×768 at 60 Hz (EDID 3.8).
const ESTABLISHED: [u8; 3] = [0x21, 0x08, 0x00];

/// Dots an inch that a monitor of the size would have: 96, so that guests do not scale.
fn millimetres(pixels: u32) -> u32 {
    pixels * 254 / 960
}

fn checksum(block: &mut [u8]) {
    let last = block.len() - 1;
    let sum = block[..last]
        .iter()
        .fold(0u8, |sum, b| sum.wrapping_add(*b));
    block[last] = sum.wrapping_neg();
}

/// A text descriptor (EDID 3.10.3): 13 characters, ended by a line feed.
fn text(tag: u8, text: &str) -> [u8; 18] {
    let mut descriptor = [0x20; 18];
    descriptor[..5].copy_from_slice(&[0, 0, 0, tag, 0]);
    let bytes = &text.as_bytes()[..text.len().min(13)];
    descriptor[5..5 + bytes.len()].copy_from_slice(bytes);
    if bytes.len() < 13 {
        descriptor[5 + bytes.len()] = b'\n';
    }
    descriptor
}

/// The EDID of output `number` whose preferred size is that many pixels: 128 bytes, or 256 with a DisplayID extension.
pub fn edid(number: u32, width: u32, height: u32) -> Vec<u8> {
    let (width, height) = (width.clamp(1, 16384), height.clamp(1, 16384));
    let timing = Timing::new(width, height);
    let size = (millimetres(width), millimetres(height));
    let mut block = vec![0; 128];
    block[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    // Manufacturer "DMR" in five-bit letters, product 1, serial number, week 0 of 2026, EDID 1.4.
    let letter = |c: u8| u16::from(c - b'A' + 1);
    let maker = letter(b'D') << 10 | letter(b'M') << 5 | letter(b'R');
    block[8..10].copy_from_slice(&maker.to_be_bytes());
    block[10..12].copy_from_slice(&1u16.to_le_bytes());
    block[12..16].copy_from_slice(&(number + 1).to_le_bytes());
    block[16..20].copy_from_slice(&[0, 36, 1, 4]);
    // Digital, 8 bits a colour, DisplayPort; centimetres; gamma 2.2; sRGB, preferred timing is native.
    let centimetres = |mm: u32| ((mm + 5) / 10).clamp(1, 255) as u8;
    block[20..25].copy_from_slice(&[0xa5, centimetres(size.0), centimetres(size.1), 120, 0x06]);
    // sRGB's primaries and white point.
    block[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    block[35..38].copy_from_slice(&ESTABLISHED);
    for (i, (wide, ratio)) in STANDARD.into_iter().enumerate() {
        block[38 + i * 2] = (wide / 8 - 31) as u8;
        block[39 + i * 2] = ratio << 6;
    }
    // What the base block cannot say has a smaller size there.
    let plain = if timing.is_plain() {
        timing.descriptor(size)
    } else {
        Timing::new(width.min(1920), height.min(1200)).descriptor(size)
    };
    block[54..72].copy_from_slice(&plain);
    // Range limits: 24..120 Hz, 15..255 kHz, up to 2550 MHz, default GTF excluded.
    let limits = [
        0, 0, 0, 0xfd, 0, 24, 120, 15, 255, 255, 1, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20,
    ];
    block[72..90].copy_from_slice(&limits);
    block[90..108].copy_from_slice(&text(0xfc, "Dormer"));
    block[108..126].copy_from_slice(&text(0xff, &format!("{}", number + 1)));
    block[126] = u8::from(!timing.is_plain());
    checksum(&mut block);
    if !timing.is_plain() {
        let mut extension = vec![0; 128];
        // DisplayID section in an EDID extension: version 1.3, its length, a desktop display.
        extension[..5].copy_from_slice(&[0x70, 0x13, 121, 0x03, 0]);
        extension[5..8].copy_from_slice(&[0x03, 0x00, 20]);
        extension[8..28].copy_from_slice(&timing.type_1());
        checksum(&mut extension[1..127]);
        checksum(&mut extension);
        block.extend(extension);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Width, height and refresh rate in mHz of a detailed timing descriptor.
    fn parse(d: &[u8]) -> (u32, u32, u32) {
        let field = |low: u8, high: u8| u32::from(low) | u32::from(high) << 8;
        let clock = field(d[0], d[1]) * 10_000;
        let (w, wb) = (field(d[2], d[4] >> 4), field(d[3], d[4] & 0xf));
        let (h, hb) = (field(d[5], d[7] >> 4), field(d[6], d[7] & 0xf));
        let rate = u64::from(clock) * 1000 / u64::from((w + wb) * (h + hb));
        (w, h, rate as u32)
    }

    #[test]
    fn common_sizes_as_vesa_has_them() {
        // CVT-RB of 1920×1080: 138.5 MHz, 1111 lines; of 1280×800: 71 MHz, 823 lines.
        let timing = Timing::new(1920, 1080);
        assert_eq!((timing.clock, timing.vertical_blank), (13850, 31));
        let timing = Timing::new(1280, 800);
        assert_eq!((timing.clock, timing.vertical_blank), (7100, 23));
    }

    #[test]
    fn large_sizes_go_to_displayid() {
        let block = edid(0, 5120, 2880);
        assert_eq!((block.len(), block[126]), (256, 1));
        assert_eq!(u16::from_le_bytes([block[140], block[141]]) + 1, 5120);
        assert_eq!(u16::from_le_bytes([block[148], block[149]]) + 1, 2880);
        assert_eq!(edid(0, 3840, 2160).len(), 128);
    }

    proptest! {
        #[test]
        fn every_block_is_sound(number in 0u32..16, width in 0u32..20000, height in 0u32..20000) {
            let block = edid(number, width, height);
            for part in block.chunks(128) {
                prop_assert_eq!(part.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            }
            prop_assert_eq!(block.len(), 128 * (1 + usize::from(block[126])));
            prop_assert!(block.len() <= super::super::spec::EDID_SIZE);
            let (w, h, rate) = parse(&block[54..72]);
            if block.len() == 128 {
                prop_assert_eq!((w, h), (width.max(1), height.max(1)));
                if width >= 640 && height >= 480 {
                    prop_assert!((59_000..=60_100).contains(&rate), "{} mHz", rate);
                }
            }
        }
    }
}
