//! The device tree (Devicetree Specification 0.4; bindings as in Linux' `Documentation/devicetree/bindings`).
//!
//! Nodes and properties are those of QEMU's `virt` board, which EDK II and kernels know.

use vm_fdt::{Error, FdtWriter};

use crate::board::{Board, Conduit, Gic, Msi, Peripheral, PowerButton, Range, TpmInterface};

/// Properties of `/chosen`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Kernel command line.
    pub bootargs: Option<String>,
    /// Where the initial RAM disk is.
    pub initrd: Option<Range>,
    /// Fresh random bits, for the kernel's address layout and its generator. Drawn anew at each reset.
    pub kaslr_seed: Option<u64>,
    pub rng_seed: Option<[u8; 32]>,
}

/// Phandles.
const CLOCK: u32 = 1;
const GIC: u32 = 2;
const MSI: u32 = 3;
const GPIO: u32 = 4;
/// Processors have this and the following ones.
const CPU: u32 = 0x100;

/// Interrupt specifiers (arm,gic.yaml).
const SPI: u32 = 0;
const PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// Linux input code of the power key.
const KEY_POWER: u32 = 116;

type Result = std::result::Result<(), Error>;

/// The tree of a board, flattened.
pub fn build(board: &Board, chosen: &Chosen) -> std::result::Result<Vec<u8>, Error> {
    let mut tree = Tree {
        fdt: FdtWriter::new()?,
        board,
    };
    tree.root(chosen)?;
    tree.fdt.finish()
}

/// An empty tree: what firmware gets where ACPI tells everything.
pub fn empty() -> std::result::Result<Vec<u8>, Error> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.end_node(root)?;
    fdt.finish()
}

struct Tree<'a> {
    fdt: FdtWriter,
    board: &'a Board,
}

/// Cells of a range where addresses and sizes have two each.
fn cells(ranges: &[Range]) -> Vec<u64> {
    ranges.iter().flat_map(|r| [r.base, r.size]).collect()
}

/// Strings of a list property.
fn list(strings: &[&str]) -> Vec<String> {
    strings.iter().map(|s| s.to_string()).collect()
}

impl Tree<'_> {
    fn node(&mut self, name: &str, body: impl FnOnce(&mut Self) -> Result) -> Result {
        let node = self.fdt.begin_node(name)?;
        body(self)?;
        self.fdt.end_node(node)
    }

    /// Type, number and trigger of an INTID.
    fn specifier(&self, interrupt: u32, trigger: u32) -> [u32; 3] {
        match interrupt.checked_sub(32) {
            Some(n) => [SPI, n, trigger],
            None => {
                // GICv2 wants to know which processors a PPI is for.
                let mask = match self.board.gic {
                    Gic::V2 { .. } => ((1 << self.board.cpus.len().min(8)) - 1) << 8,
                    Gic::V3 { .. } => 0,
                };
                [PPI, interrupt.wrapping_sub(16), trigger | mask]
            }
        }
    }

    fn interrupt(&mut self, interrupt: u32, trigger: u32) -> Result {
        let specifier = self.specifier(interrupt, trigger);
        self.fdt.property_array_u32("interrupts", &specifier)
    }

    fn root(&mut self, chosen: &Chosen) -> Result {
        self.node("", |t| {
            t.fdt.property_u32("interrupt-parent", GIC)?;
            t.fdt.property_null("dma-coherent")?;
            t.fdt.property_string("model", "linux,dummy-virt")?;
            t.fdt.property_u32("#size-cells", 2)?;
            t.fdt.property_u32("#address-cells", 2)?;
            t.fdt.property_string("compatible", "linux,dummy-virt")?;
            t.chosen(chosen)?;
            t.psci()?;
            for range in t.board.memory.clone() {
                t.node(&format!("memory@{:x}", range.base), |t| {
                    t.fdt.property_array_u64("reg", &cells(&[range]))?;
                    t.fdt.property_string("device_type", "memory")
                })?;
            }
            t.cpus()?;
            t.timer()?;
            t.clock()?;
            t.gic()?;
            t.pmu()?;
            t.flash()?;
            t.uart()?;
            t.rtc()?;
            t.fw_cfg()?;
            t.gpio()?;
            t.pcie()?;
            t.platform_bus()
        })
    }

    fn chosen(&mut self, chosen: &Chosen) -> Result {
        let uart = format!("/pl011@{:x}", self.board.uart.registers.base);
        self.node("aliases", |t| t.fdt.property_string("serial0", &uart))?;
        self.node("chosen", |t| {
            t.fdt.property_string("stdout-path", &uart)?;
            if let Some(bootargs) = &chosen.bootargs {
                t.fdt.property_string("bootargs", bootargs)?;
            }
            if let Some(initrd) = chosen.initrd {
                t.fdt.property_u64("linux,initrd-start", initrd.base)?;
                t.fdt.property_u64("linux,initrd-end", initrd.end())?;
            }
            if let Some(seed) = chosen.kaslr_seed {
                t.fdt.property_u64("kaslr-seed", seed)?;
            }
            if let Some(seed) = &chosen.rng_seed {
                t.fdt.property("rng-seed", seed)?;
            }
            Ok(())
        })
    }

    /// Function numbers are those of PSCI 0.2 and later (Arm DEN 0022), for kernels that want them told.
    fn psci(&mut self) -> Result {
        let method = match self.board.psci {
            Conduit::Hvc => "hvc",
            Conduit::Smc => "smc",
        };
        self.node("psci", |t| {
            let compatible = list(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]);
            t.fdt.property_string_list("compatible", compatible)?;
            t.fdt.property_string("method", method)?;
            t.fdt.property_u32("cpu_suspend", 0xc400_0001)?;
            t.fdt.property_u32("cpu_off", 0x8400_0002)?;
            t.fdt.property_u32("cpu_on", 0xc400_0003)?;
            t.fdt.property_u32("migrate", 0xc400_0005)
        })
    }

    fn cpus(&mut self) -> Result {
        let board = self.board;
        // Affinity level 3 needs a second cell.
        let wide = board.cpus.iter().any(|c| c.mpidr >> 32 != 0);
        self.node("cpus", |t| {
            t.fdt
                .property_u32("#address-cells", if wide { 2 } else { 1 })?;
            t.fdt.property_u32("#size-cells", 0)?;
            t.cpu_map()?;
            for (i, cpu) in (0u32..).zip(&board.cpus) {
                t.node(&format!("cpu@{:x}", cpu.mpidr), |t| {
                    t.fdt.property_string("device_type", "cpu")?;
                    t.fdt.property_string("compatible", &cpu.compatible)?;
                    t.fdt.property_string("enable-method", "psci")?;
                    match wide {
                        true => t.fdt.property_u64("reg", cpu.mpidr)?,
                        false => t.fdt.property_u32("reg", cpu.mpidr as u32)?,
                    }
                    t.fdt.property_phandle(CPU + i)
                })?;
            }
            Ok(())
        })
    }

    /// `cpu-map` (cpu/cpu-topology.txt): sockets, clusters, cores and, if there is more than one a core, threads.
    fn cpu_map(&mut self) -> Result {
        let topology = self.board.topology;
        let count = self.board.cpus.len() as u32;
        let (clusters, cores) = (topology.clusters.max(1), topology.cores.max(1));
        let threads = topology.threads.max(1);
        let per_cluster = cores * threads;
        let per_socket = clusters * per_cluster;
        self.node("cpu-map", |t| {
            for socket in 0..count.div_ceil(per_socket) {
                t.node(&format!("socket{socket}"), |t| {
                    let first = socket * per_socket;
                    let left = (count - first).min(per_socket);
                    for cluster in 0..left.div_ceil(per_cluster) {
                        let first = first + cluster * per_cluster;
                        let left = (count - first).min(per_cluster);
                        t.node(&format!("cluster{cluster}"), |t| {
                            t.cores(first, left, threads)
                        })?;
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })
    }

    fn cores(&mut self, first: u32, count: u32, threads: u32) -> Result {
        for core in 0..count.div_ceil(threads) {
            let cpu = first + core * threads;
            self.node(&format!("core{core}"), |t| {
                if threads == 1 {
                    return t.fdt.property_u32("cpu", CPU + cpu);
                }
                for thread in 0..threads.min(count - core * threads) {
                    let name = format!("thread{thread}");
                    t.node(&name, |t| t.fdt.property_u32("cpu", CPU + cpu + thread))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn timer(&mut self) -> Result {
        let timers = self.board.timers;
        let ppis = [
            timers.secure,
            timers.non_secure,
            timers.virtual_,
            timers.hypervisor,
        ];
        let specifiers: Vec<u32> = ppis
            .iter()
            .flat_map(|ppi| self.specifier(*ppi, LEVEL_HIGH))
            .collect();
        self.node("timer", |t| {
            let compatible = list(&["arm,armv8-timer", "arm,armv7-timer"]);
            t.fdt.property_string_list("compatible", compatible)?;
            t.fdt.property_null("always-on")?;
            t.fdt.property_array_u32("interrupts", &specifiers)
        })
    }

    fn clock(&mut self) -> Result {
        self.node("apb-pclk", |t| {
            t.fdt.property_string("compatible", "fixed-clock")?;
            t.fdt.property_u32("#clock-cells", 0)?;
            t.fdt.property_u32("clock-frequency", 24_000_000)?;
            t.fdt.property_string("clock-output-names", "clk24mhz")?;
            t.fdt.property_phandle(CLOCK)
        })
    }

    fn gic(&mut self) -> Result {
        let board = self.board;
        let (compatible, distributor, others) = match &board.gic {
            Gic::V2 {
                distributor,
                cpu_interface,
            } => ("arm,cortex-a15-gic", *distributor, vec![*cpu_interface]),
            Gic::V3 {
                distributor,
                redistributors,
            } => ("arm,gic-v3", *distributor, redistributors.clone()),
        };
        self.node(&format!("intc@{:x}", distributor.base), |t| {
            t.fdt.property_string("compatible", compatible)?;
            t.fdt.property_u32("#interrupt-cells", 3)?;
            t.fdt.property_null("interrupt-controller")?;
            t.fdt.property_u32("#address-cells", 2)?;
            t.fdt.property_u32("#size-cells", 2)?;
            t.fdt.property_null("ranges")?;
            if let Gic::V3 { redistributors, .. } = &board.gic {
                t.fdt
                    .property_u32("#redistributor-regions", redistributors.len() as u32)?;
            }
            let all: Vec<Range> = std::iter::once(distributor).chain(others).collect();
            t.fdt.property_array_u64("reg", &cells(&all))?;
            t.fdt.property_phandle(GIC)?;
            t.msi()
        })
    }

    fn msi(&mut self) -> Result {
        match self.board.msi {
            Msi::None => Ok(()),
            Msi::V2m {
                frame,
                first,
                count,
            } => self.node(&format!("v2m@{:x}", frame.base), |t| {
                t.fdt.property_string("compatible", "arm,gic-v2m-frame")?;
                t.fdt.property_null("msi-controller")?;
                t.fdt.property_array_u64("reg", &cells(&[frame]))?;
                t.fdt.property_u32("arm,msi-base-spi", first)?;
                t.fdt.property_u32("arm,msi-num-spis", count)?;
                t.fdt.property_phandle(MSI)
            }),
            Msi::Its { registers } => self.node(&format!("its@{:x}", registers.base), |t| {
                t.fdt.property_string("compatible", "arm,gic-v3-its")?;
                t.fdt.property_null("msi-controller")?;
                t.fdt.property_u32("#msi-cells", 1)?;
                t.fdt.property_array_u64("reg", &cells(&[registers]))?;
                t.fdt.property_phandle(MSI)
            }),
        }
    }

    fn pmu(&mut self) -> Result {
        let Some(ppi) = self.board.pmu else {
            return Ok(());
        };
        self.node("pmu", |t| {
            t.fdt.property_string("compatible", "arm,armv8-pmuv3")?;
            t.interrupt(ppi, LEVEL_HIGH)
        })
    }

    fn flash(&mut self) -> Result {
        let Some(banks) = self.board.flash else {
            return Ok(());
        };
        self.node(&format!("flash@{:x}", banks[0].base), |t| {
            t.fdt.property_string("compatible", "cfi-flash")?;
            t.fdt.property_array_u64("reg", &cells(&banks))?;
            t.fdt.property_u32("bank-width", 4)
        })
    }

    /// What all PrimeCells have in common. `clocks`: names, all of them of the one clock.
    fn primecell(&mut self, kind: &str, device: Peripheral, clocks: &[&str]) -> Result {
        let compatible = list(&[&format!("arm,{kind}"), "arm,primecell"]);
        self.fdt.property_string_list("compatible", compatible)?;
        self.fdt
            .property_array_u64("reg", &cells(&[device.registers]))?;
        self.interrupt(device.interrupt, LEVEL_HIGH)?;
        self.fdt
            .property_array_u32("clocks", &vec![CLOCK; clocks.len()])?;
        self.fdt.property_string_list("clock-names", list(clocks))
    }

    fn uart(&mut self) -> Result {
        let uart = self.board.uart;
        self.node(&format!("pl011@{:x}", uart.registers.base), |t| {
            t.primecell("pl011", uart, &["uartclk", "apb_pclk"])
        })
    }

    fn rtc(&mut self) -> Result {
        let rtc = self.board.rtc;
        self.node(&format!("pl031@{:x}", rtc.registers.base), |t| {
            t.primecell("pl031", rtc, &["apb_pclk"])
        })
    }

    fn fw_cfg(&mut self) -> Result {
        let registers = self.board.fw_cfg;
        self.node(&format!("fw-cfg@{:x}", registers.base), |t| {
            t.fdt.property_string("compatible", "qemu,fw-cfg-mmio")?;
            t.fdt.property_array_u64("reg", &cells(&[registers]))?;
            t.fdt.property_null("dma-coherent")
        })
    }

    fn gpio(&mut self) -> Result {
        let Some(PowerButton::Gpio(gpio)) = self.board.power_button else {
            return Ok(());
        };
        self.node(&format!("pl061@{:x}", gpio.registers.base), |t| {
            t.primecell("pl061", gpio, &["apb_pclk"])?;
            t.fdt.property_null("gpio-controller")?;
            t.fdt.property_u32("#gpio-cells", 2)?;
            t.fdt.property_phandle(GPIO)
        })?;
        self.node("gpio-keys", |t| {
            t.fdt.property_string("compatible", "gpio-keys")?;
            t.node("poweroff", |t| {
                t.fdt.property_string("label", "GPIO Key Poweroff")?;
                t.fdt.property_u32("linux,code", KEY_POWER)?;
                t.fdt.property_array_u32("gpios", &[GPIO, 3, 0])
            })
        })
    }

    fn pcie(&mut self) -> Result {
        let Some(pcie) = self.board.pcie else {
            return Ok(());
        };
        let has_msi = self.board.msi != Msi::None;
        self.node(&format!("pcie@{:x}", pcie.memory32.base), |t| {
            t.fdt
                .property_string("compatible", "pci-host-ecam-generic")?;
            t.fdt.property_string("device_type", "pci")?;
            t.fdt.property_u32("#address-cells", 3)?;
            t.fdt.property_u32("#size-cells", 2)?;
            t.fdt.property_u32("linux,pci-domain", 0)?;
            t.fdt
                .property_array_u32("bus-range", &[0, pcie.buses() - 1])?;
            t.fdt.property_null("dma-coherent")?;
            t.fdt.property_array_u64("reg", &cells(&[pcie.ecam]))?;
            // Space code, PCI address, CPU address, size (IEEE 1275 PCI binding, 2.2.1.1).
            let mut ranges = Vec::new();
            let windows = [
                (0x0100_0000, Some((0, pcie.io))),
                (0x0200_0000, Some((pcie.memory32.base, pcie.memory32))),
                (0x0300_0000, pcie.memory64.map(|r| (r.base, r))),
            ];
            for (space, window) in windows {
                let Some((address, range)) = window else {
                    continue;
                };
                ranges.push(space);
                for cell in [address, range.base, range.size] {
                    ranges.extend([(cell >> 32) as u32, cell as u32]);
                }
            }
            t.fdt.property_array_u32("ranges", &ranges)?;
            if has_msi {
                t.fdt
                    .property_array_u32("msi-map", &[0, MSI, 0, 0x1_0000])?;
            }
            t.fdt.property_u32("#interrupt-cells", 1)?;
            // Four slots: then the swizzle repeats.
            let mut map = Vec::new();
            for slot in 0..4 {
                for pin in 0..4 {
                    map.extend([slot << 11, 0, 0, pin + 1, GIC, 0, 0]);
                    map.extend(t.specifier(pcie.interrupt(slot, pin), LEVEL_HIGH));
                }
            }
            t.fdt.property_array_u32("interrupt-map", &map)?;
            t.fdt
                .property_array_u32("interrupt-map-mask", &[3 << 11, 0, 0, 7])
        })
    }

    fn platform_bus(&mut self) -> Result {
        let board = self.board;
        let Some(bus) = board.platform_bus else {
            return Ok(());
        };
        self.node(&format!("platform-bus@{:x}", bus.base), |t| {
            t.fdt
                .property_string_list("compatible", list(&["qemu,platform", "simple-bus"]))?;
            t.fdt.property_u32("#address-cells", 1)?;
            t.fdt.property_u32("#size-cells", 1)?;
            let (high, low) = ((bus.base >> 32) as u32, bus.base as u32);
            t.fdt
                .property_array_u32("ranges", &[0, high, low, bus.size as u32])?;
            t.fdt.property_u32("interrupt-parent", GIC)?;
            let Some(tpm) = board.tpm else { return Ok(()) };
            let offset = tpm.registers.base.wrapping_sub(bus.base) as u32;
            // EDK II finds a TPM of either interface by this name and asks its interface identifier.
            let kind = match tpm.interface {
                TpmInterface::Crb => "tpm-crb",
                TpmInterface::Tis => "tpm_tis",
            };
            t.node(&format!("{kind}@{offset:x}"), |t| {
                t.fdt.property_string("compatible", "tcg,tpm-tis-mmio")?;
                t.fdt
                    .property_array_u32("reg", &[offset, tpm.registers.size as u32])
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Topology, Tpm};
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// The source of a tree by `dtc` (Debian: device-tree-compiler), with its complaints; `None` without it.
    fn source(tree: &[u8]) -> Option<(String, String)> {
        let mut dtc = Command::new("dtc")
            .args(["-I", "dtb", "-O", "dts", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        dtc.stdin.take()?.write_all(tree).ok()?;
        let output = dtc.wait_with_output().ok()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Some((text(&output.stdout), text(&output.stderr)))
    }

    fn tree(board: &Board) -> String {
        let chosen = Chosen {
            bootargs: Some("console=ttyAMA0".into()),
            initrd: Some(Range::new(0x4800_0000, 0x1234)),
            kaslr_seed: Some(1),
            rng_seed: Some([7; 32]),
        };
        let bytes = build(board, &chosen).unwrap();
        let Some((text, complaints)) = source(&bytes) else {
            eprintln!("dtc is not installed: only the header is checked");
            assert_eq!(bytes[..4], [0xd0, 0x0d, 0xfe, 0xed]);
            return String::new();
        };
        // What dtc says of the board's own names (QEMU's are the same) is known; all else is a mistake.
        for line in complaints.lines() {
            let known = [
                "unit_address_vs_reg",
                "simple_bus_reg",
                "chosen_node_stdout_path",
                "unique_unit_address",
            ];
            let fine = known.iter().any(|k| line.contains(k)) || !line.contains("Warning");
            assert!(fine, "{line}");
        }
        text
    }

    fn assert_has(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(
                text.is_empty() || text.contains(part),
                "no {part} in\n{text}"
            );
        }
    }

    #[test]
    fn the_board_with_its() {
        let mut board = Board::virt(4, 2 << 30);
        board.msi = Board::ITS;
        board.power_button = Some(PowerButton::Gpio(Board::GPIO));
        // As in the tree that QEMU gives for the same board.
        assert_has(
            &tree(&board),
            &[
                "linux,initrd-start = <0x00 0x48000000>;",
                "linux,initrd-end = <0x00 0x48001234>;",
                "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x80a0000 0x00 0xf60000>;",
                "its@8080000",
                "msi-map = <0x00 0x03 0x00 0x10000>;",
                "reg = <0x40 0x10000000 0x00 0x10000000>;",
                "ranges = <0x1000000 0x00 0x00 0x00 0x3eff0000 0x00 0x10000 0x2000000 0x00 0x10000000 0x00 0x10000000 \
                 0x00 0x2eff0000 0x3000000 0x80 0x00 0x80 0x00 0x80 0x00>;",
                "interrupt-map = <0x00 0x00 0x00 0x01 0x02 0x00 0x00 0x00 0x03 0x04 0x00 0x00 0x00 0x02 0x02 0x00 0x00 \
                 0x00 0x04 0x04",
                "interrupts = <0x01 0x0d 0x04 0x01 0x0e 0x04 0x01 0x0b 0x04 0x01 0x0a 0x04>;",
                "gpios = <0x04 0x03 0x00>;",
                "reg = <0x00 0x40000000 0x00 0x80000000>;",
                "core3",
            ],
        );
    }

    #[test]
    fn the_board_with_gicv2_threads_and_tpm() {
        let mut board = Board::virt(8, 2 << 30);
        board.gic = Board::GIC_V2;
        board.topology = Topology {
            sockets: 2,
            clusters: 1,
            cores: 2,
            threads: 2,
        };
        board.tpm = Some(Tpm {
            interface: TpmInterface::Crb,
            registers: Range::new(0x0c00_0000, 0x1000),
        });
        let text = tree(&board);
        assert_has(
            &text,
            &[
                "v2m@8020000",
                "arm,msi-base-spi = <0x50>;",
                "socket1",
                "thread1",
            ],
        );
        assert_has(
            &text,
            &["interrupts = <0x01 0x07 0xff04>;", "tcg,tpm-tis-mmio"],
        );
        assert!(!text.contains("gpio-keys"), "the GED's machine has no GPIO");
    }

    #[test]
    fn an_empty_tree_is_a_tree() {
        let bytes = empty().unwrap();
        assert_eq!(bytes[..4], [0xd0, 0x0d, 0xfe, 0xed]);
        assert!(source(&bytes).is_none_or(|(text, _)| text.contains("/ {")));
    }
}
