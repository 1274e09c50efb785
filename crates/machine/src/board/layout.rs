//! Where things are: the `virt` board's map, fitted to what was asked for.

use firmware::board::{Board, Msi, PowerButton};

use crate::BuildError;
use crate::description::{Description, GicChoice, MsiChoice};

/// RAM may not reach the redistributors, ECAM and the window above it.
const RAM_END_HIGHMEM: u64 = 0x40_0000_0000;
/// All below 4 GiB.
const RAM_END_LOW: u64 = 0x1_0000_0000;
/// Processors that GICv2 can address.
const GICV2_CPUS: u32 = 8;
/// Processors whose redistributors fit below 4 GiB.
const LOW_REDISTRIBUTORS: u32 = 123;

/// The board that a description asks for. `acpi`: the guest gets ACPI tables rather than a device tree; `pmu`: processors
/// have one.
///
/// # Errors
/// RAM or processors do not fit, or the interrupt controller cannot take messages as asked.
pub fn layout(description: &Description, acpi: bool, pmu: bool) -> Result<Board, BuildError> {
    let Description {
        cpus,
        memory,
        highmem,
        ..
    } = *description;
    let limit = if highmem {
        RAM_END_HIGHMEM
    } else {
        RAM_END_LOW
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
        _ if !highmem => LOW_REDISTRIBUTORS,
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
    if !highmem && let Some(pcie) = &mut board.pcie {
        pcie.ecam = Board::LOW_ECAM;
        pcie.memory64 = None;
    }
    if !pmu {
        board.pmu = None;
    }
    Ok(board)
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

    #[test]
    fn regions_do_not_overlap() {
        for highmem in [false, true] {
            for (gic, cpus) in [
                (GicChoice::V2, 8),
                (GicChoice::Auto, 123),
                (GicChoice::V3, if highmem { 512 } else { 123 }),
            ] {
                let memory = if highmem { 255 << 30 } else { 3 << 30 };
                let board = layout(
                    &description(cpus, memory, highmem, gic, MsiChoice::Auto),
                    true,
                    true,
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
            layout(&description(cpus, memory, highmem, gic, msi), true, true).is_err()
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
            layout(&description(1, 1 << 30, true, gic, msi), true, true)
                .unwrap()
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
