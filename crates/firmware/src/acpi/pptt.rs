//! PPTT revision 2 (ACPI 6.3, 5.2.29): how processors are grouped. Caches are left to CLIDR_EL1.

use super::table::{Body, HEADER, table};
use crate::board::Board;

const PROCESSOR_HIERARCHY_NODE: u8 = 0;
const NODE_LENGTH: u8 = 20;

const PHYSICAL_PACKAGE: u32 = 1 << 0;
const ID_VALID: u32 = 1 << 1;
const IS_THREAD: u32 = 1 << 2;
const IS_LEAF: u32 = 1 << 3;

pub(super) fn build(board: &Board) -> Vec<u8> {
    let topology = board.topology;
    let mut nodes = Nodes(Body::default());
    let threads = topology.threads.max(1);
    let cores = topology.cores.max(1);
    let clusters = topology.clusters.max(1);
    let (mut socket, mut cluster, mut core) = (0, 0, 0);
    for uid in 0..board.cpus.len() as u32 {
        if uid % (clusters * cores * threads) == 0 {
            socket = nodes.add(PHYSICAL_PACKAGE, 0, uid / (clusters * cores * threads));
        }
        let mut parent = socket;
        if clusters > 1 {
            if uid % (cores * threads) == 0 {
                cluster = nodes.add(0, socket, uid / (cores * threads));
            }
            parent = cluster;
        }
        if threads > 1 {
            if uid % threads == 0 {
                core = nodes.add(0, parent, uid / threads);
            }
            nodes.add(ID_VALID | IS_THREAD | IS_LEAF, core, uid);
        } else {
            nodes.add(ID_VALID | IS_LEAF, parent, uid);
        }
    }
    table(b"PPTT", 2, nodes.0)
}

struct Nodes(Body);

impl Nodes {
    /// Appends a node; its offset in the table, by which children name their parent.
    fn add(&mut self, flags: u32, parent: u32, id: u32) -> u32 {
        let offset = (HEADER + self.0.0.len()) as u32;
        let body = std::mem::take(&mut self.0)
            .u8(PROCESSOR_HIERARCHY_NODE)
            .u8(NODE_LENGTH)
            .u16(0);
        self.0 = body.u32(flags).u32(parent).u32(id).u32(0);
        offset
    }
}
