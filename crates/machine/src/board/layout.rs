//! Where things are: the `virt` board's map, fitted to what was asked for.

use engine::AddressBits;
use firmware::board::{Board, Msi, PowerButton};

use crate::BuildError;
use crate::description::{Description, GicChoice, MsiChoice};

/// RAM may not reach the redistributors, ECAM and the window above it.
const RAM_END_HIGHMEM: u64 = 0x40_0000_0000;
/// Addresses of this size have room for the window of 512 GiB at 0x80_0000_0000.
const HIGH_BUS_BITS: u32 = 40;
/// All below 4 GiB.
const RAM_END_LOW: u64 = 0x1_0000_0000;
/// Processors that GICv2 can address.
const GICV2_CPUS: u32 = 8;
/// Processors whose redistributors fit below 4 GiB.
const LOW_REDISTRIBUTORS: u32 = 123;

/// The board that a description asks for. `acpi`: the guest gets ACPI tables rather than a device tree; `pmu`: processors
/// have one; `bits`: what the engine has. The second value is how many bits of addresses the board takes.
///
/// # Errors
/// RAM or processors do not fit, or the interrupt controller cannot take messages as asked.
pub fn layout(
    description: &Description,
    acpi: bool,
    pmu: bool,
    bits: AddressBits,
) -> Result<(Board, u32), BuildError> {
    let Description {
        cpus,
        memory,
        highmem,
        ..
    } = *description;
    let bits = address_bits(memory, bits);
    // Below 40 bits the bus's window and configuration space have no room past RAM.
    let high_bus = highmem && bits >= HIGH_BUS_BITS;
    let limit = match (highmem, high_bus) {
        (false, _) => RAM_END_LOW,
        (true, true) => RAM_END_HIGHMEM,
        (true, false) => RAM_END_HIGHMEM.min(1 << bits),
    };
    if Board::RAM_BASE
        .checked_add(memory)
        .is_none_or(|end| end > limit)
    {
        return Err(BuildError::TooMuchMemory {
            asked: memory,
            most: limit - Board::RAM_BASE,
            highmem,
        });
    }
    let mut board = Board::virt(cpus, memory);
    let most = match description.gic {
        GicChoice::V2 => GICV2_CPUS,
        _ if !high_bus => LOW_REDISTRIBUTORS,
        _ => crate::MAX_CPUS,
    };
    if cpus > most {
        return Err(BuildError::TooManyProcessors { asked: cpus, most });
    }
    if description.gic == GicChoice::V2 {
        board.gic = Board::GIC_V2;
    }
    board.msi = match (description.msi, description.gic) {
        (MsiChoice::Auto, GicChoice::V3) | (MsiChoice::Its, GicChoice::V3 | GicChoice::Auto) => {
            Board::ITS
        }
        (MsiChoice::Its, GicChoice::V2) => return Err(BuildError::ItsWithoutGicv3),
        (MsiChoice::Auto | MsiChoice::Gicv2m, _) => board.msi,
        (MsiChoice::None, _) => Msi::None,
    };
    if !acpi {
        board.power_button = Some(PowerButton::Gpio(Board::GPIO));
    }
    if !high_bus && let Some(pcie) = &mut board.pcie {
        pcie.ecam = Board::LOW_ECAM;
        pcie.memory64 = None;
    }
    if !pmu {
        board.pmu = None;
    }
    Ok((board, bits))
}

/// As many bits as the engine prefers if RAM fits them, else all that it has.
fn address_bits(memory: u64, bits: AddressBits) -> u32 {
    let fits = Board::RAM_BASE
        .checked_add(memory)
        .is_some_and(|end| end <= 1 << bits.preferred);
    if fits { bits.preferred } else { bits.most }
}

#[cfg(test)]
mod tests {
    use firmware::board::{Gic, Range};

    use super::*;

    /// Every region of a board that something answers in, RAM included.
    fn regions(board: &Board) -> Vec<Range> {
        let mut all = vec![board.uart.registers, board.rtc.registers, board.fw_cfg];
        all.extend(&board.memory);
        all.extend(board.flash.iter().flatten());
        match &board.gic {
            Gic::V2 {
                distributor,
                cpu_interface,
            } => all.extend([*distributor, *cpu_interface]),
            Gic::V3 {
                distributor,
                redistributors,
            } => {
                all.push(*distributor);
                all.extend(redistributors);
            }
        }
        match board.msi {
            Msi::None => {}
            Msi::V2m { frame, .. } => all.push(frame),
            Msi::Its { registers } => all.push(registers),
        }
        match board.power_button {
            Some(PowerButton::Gpio(p) | PowerButton::Ged(p)) => all.push(p.registers),
            None => {}
        }
        if let Some(pcie) = &board.pcie {
            all.extend([pcie.ecam, pcie.io, pcie.memory32]);
            all.extend(pcie.memory64);
        }
        all
    }

    fn description(
        cpus: u32,
        memory: u64,
        highmem: bool,
        gic: GicChoice,
        msi: MsiChoice,
    ) -> Description {
        Description {
            cpus,
            memory,
            highmem,
            gic,
            msi,
            ..Description::default()
        }
    }

    const FULL: AddressBits = AddressBits {
        most: 48,
        preferred: 48,
    };

    /// Apple silicon: small machines get small maps, larger ones what the host has.
    #[test]
    fn fitted_to_the_engine() {
        let apple = AddressBits {
            most: 40,
            preferred: 36,
        };
        let fit = |memory, highmem, bits| {
            let asked = description(4, memory, highmem, GicChoice::Auto, MsiChoice::Auto);
            layout(&asked, true, true, bits)
        };
        let (board, bits) = fit(62 << 30, true, apple).unwrap();
        assert_eq!(bits, 36);
        let pcie = board.pcie.unwrap();
        assert_eq!(pcie.ecam, Board::LOW_ECAM);
        assert_eq!((pcie.buses(), pcie.memory64), (16, None));
        assert!(regions(&board).iter().all(|r| r.end() <= 1 << 36));
        let (board, bits) = fit(64 << 30, true, apple).unwrap();
        assert_eq!(bits, 40);
        assert!(board.pcie.as_ref().unwrap().memory64.is_some());
        assert!(regions(&board).iter().all(|r| r.end() <= 1 << 40));
        let small = AddressBits {
            most: 36,
            preferred: 36,
        };
        assert!(fit(63 << 30, true, small).is_ok());
        assert!(fit(64 << 30, true, small).is_err());
        assert!(fit(4 << 30, false, small).is_err());
    }

    #[test]
    fn regions_do_not_overlap() {
        for highmem in [false, true] {
            for (gic, cpus) in [
                (GicChoice::V2, 8),
                (GicChoice::Auto, 123),
                (GicChoice::V3, if highmem { 512 } else { 123 }),
            ] {
                let memory = if highmem { 255 << 30 } else { 3 << 30 };
                let (board, _) = layout(
                    &description(cpus, memory, highmem, gic, MsiChoice::Auto),
                    true,
                    true,
                    FULL,
                )
                .unwrap();
                let mut all = regions(&board);
                all.sort_by_key(|r| r.base);
                for pair in all.windows(2) {
                    assert!(!pair[0].overlaps(pair[1]), "{pair:x?}");
                }
                if !highmem {
                    assert!(all.iter().all(|r| r.end() <= RAM_END_LOW));
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit() {
        let fails = |cpus, memory, highmem, gic, msi| {
            layout(
                &description(cpus, memory, highmem, gic, msi),
                true,
                true,
                FULL,
            )
            .is_err()
        };
        assert!(fails(1, 256 << 30, true, GicChoice::Auto, MsiChoice::Auto));
        assert!(fails(
            1,
            (3 << 30) + (1 << 20),
            false,
            GicChoice::Auto,
            MsiChoice::Auto
        ));
        assert!(fails(1, u64::MAX, true, GicChoice::Auto, MsiChoice::Auto));
        assert!(fails(9, 1 << 30, true, GicChoice::V2, MsiChoice::Auto));
        assert!(fails(124, 1 << 30, false, GicChoice::Auto, MsiChoice::Auto));
        assert!(fails(1, 1 << 30, true, GicChoice::V2, MsiChoice::Its));
    }

    #[test]
    fn messages_by_the_contract() {
        let msi = |gic, msi| {
            layout(&description(1, 1 << 30, true, gic, msi), true, true, FULL)
                .unwrap()
                .0
                .msi
        };
        assert!(matches!(
            msi(GicChoice::Auto, MsiChoice::Auto),
            Msi::V2m {
                first: 80,
                count: 64,
                ..
            }
        ));
        assert!(matches!(
            msi(GicChoice::V3, MsiChoice::Auto),
            Msi::Its { .. }
        ));
        assert!(matches!(
            msi(GicChoice::V3, MsiChoice::Gicv2m),
            Msi::V2m { .. }
        ));
        assert!(matches!(
            msi(GicChoice::V2, MsiChoice::Auto),
            Msi::V2m { .. }
        ));
        assert!(matches!(
            msi(GicChoice::Auto, MsiChoice::Its),
            Msi::Its { .. }
        ));
        assert_eq!(msi(GicChoice::V3, MsiChoice::None), Msi::None);
    }
}
