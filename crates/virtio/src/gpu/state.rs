//! The guest's resources and scanouts, and what the commands do to them (VIRTIO 5.7.6).

use std::collections::BTreeMap;
use std::sync::Arc;

use ::device::screen::CursorImage;
use memory::Dma;
use serde::{Deserialize, Serialize};

use super::GpuConfig;
use super::backing::{Backing, MOST_ENTRIES};
use super::edid::edid;
use super::format::{Format, PIXEL};
use super::scanout::{Head, LARGEST, Rectangle};
use super::spec::{self, Refusal, command, ok};
use crate::{Cursor, Segment};

/// A 2D image in host memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub format: Format,
    pub width: u32,
    pub height: u32,
    /// Rows without padding. Saved apart from the rest.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

impl Image {
    /// Bytes of an image of that size.
    pub fn size(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * PIXEL
    }
}

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Image(Image),
    /// Guest memory itself, of that many bytes.
    Blob(u64),
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    pub kind: Kind,
    pub backing: Option<Backing>,
}

/// Host memory that any resource is counted for beside its pixels: it bounds their number too.
const OVERHEAD: u64 = 4096;
/// The most pixels that an image may have each way.
const LONGEST: u32 = 32768;

impl Resource {
    fn cost(&self) -> u64 {
        let pixels = match &self.kind {
            Kind::Image(image) => image.size(),
            Kind::Blob(_) => 0,
        };
        pixels + OVERHEAD + self.backing.as_ref().map_or(0, Backing::cost)
    }
}

/// How pixels lie in a blob (VIRTIO 5.7.6.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub format: Format,
    /// Bytes from a row to the next.
    pub stride: u32,
    /// Bytes to the first pixel.
    pub offset: u32,
}

impl Layout {
    /// Where the last pixel of a part that is not empty ends, in bytes.
    fn reaches(&self, part: &Rectangle) -> u64 {
        let row = (u64::from(part.y) + u64::from(part.height)).saturating_sub(1);
        let column = u64::from(part.x) + u64::from(part.width);
        u64::from(self.offset) + row * u64::from(self.stride) + column * PIXEL
    }
}

/// What an output shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanout {
    pub resource: u32,
    pub part: Rectangle,
    /// For a blob.
    pub layout: Option<Layout>,
}

/// All that a guest can observe beside the transport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `events_read`.
    pub events: u32,
    pub resources: BTreeMap<u32, Resource>,
    pub scanouts: Vec<Option<Scanout>>,
}

/// What the commands work with.
pub struct Wiring<'a> {
    pub config: &'a GpuConfig,
    pub heads: &'a [Arc<Head>],
    pub dma: &'a Dma,
}

/// A command's answer: its type, and what follows the header.
pub type Answer = Result<(u32, Vec<u8>), Refusal>;

const DONE: Answer = Ok((ok::NODATA, Vec::new()));

/// The rest of a command, behind its header.
pub struct Body<'a> {
    pub dma: &'a Dma,
    pub cursor: Cursor<'a>,
}

impl Body<'_> {
    /// The next little-endian words; a command that ends before them is refused.
    fn words<const N: usize>(&mut self) -> Result<[u32; N], Refusal> {
        let mut words = [0; N];
        for word in &mut words {
            let mut bytes = [0; 4];
            match self.cursor.read(self.dma, &mut bytes) {
                Ok(4) => *word = u32::from_le_bytes(bytes),
                _ => return Err(Refusal::Unspecified),
            }
        }
        Ok(words)
    }

    fn rectangle(&mut self) -> Result<Rectangle, Refusal> {
        let [x, y, width, height] = self.words()?;
        Ok(Rectangle {
            x,
            y,
            width,
            height,
        })
    }

    fn long(&mut self) -> Result<u64, Refusal> {
        let [low, high] = self.words()?;
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    /// `count` memory entries.
    fn backing(&mut self, count: u32) -> Result<Backing, Refusal> {
        if count > MOST_ENTRIES {
            return Err(Refusal::Unspecified);
        }
        let mut list = Vec::new();
        for _ in 0..count {
            let address = self.long()?;
            let [length, _] = self.words()?;
            list.push(Segment { address, length });
        }
        Backing::new(self.dma, list).ok_or(Refusal::Unspecified)
    }
}

impl State {
    /// After power-on or a reset.
    pub fn power_on(config: &GpuConfig) -> State {
        State {
            events: 0,
            resources: BTreeMap::new(),
            scanouts: vec![None; config.max_outputs as usize],
        }
    }

    /// Carries out a command of the control queue.
    pub fn control(&mut self, wiring: &Wiring, kind: u32, body: &mut Body) -> Answer {
        match kind {
            command::GET_DISPLAY_INFO => Ok((ok::DISPLAY_INFO, display_info(wiring))),
            command::GET_EDID if wiring.config.edid => get_edid(wiring, body),
            command::RESOURCE_CREATE_2D => self.create(wiring, body),
            command::RESOURCE_UNREF => self.unref(wiring, body),
            command::SET_SCANOUT => self.set_scanout(wiring, body),
            command::RESOURCE_FLUSH => self.flush(wiring, body),
            command::TRANSFER_TO_HOST_2D => self.transfer(wiring, body),
            command::RESOURCE_ATTACH_BACKING => self.attach(wiring, body),
            command::RESOURCE_DETACH_BACKING => self.detach(body),
            command::RESOURCE_CREATE_BLOB if wiring.config.blob => self.create_blob(wiring, body),
            command::SET_SCANOUT_BLOB if wiring.config.blob => self.set_scanout_blob(wiring, body),
            _ => Err(Refusal::Unspecified),
        }
    }

    /// Carries out a command of the cursor queue (VIRTIO 5.7.6.9).
    pub fn cursor(&mut self, wiring: &Wiring, kind: u32, body: &mut Body) -> Result<(), Refusal> {
        let [scanout, x, y, _] = body.words()?;
        let [resource, hot_x, hot_y, _] = body.words()?;
        let head = wiring.heads.get(scanout as usize);
        let head = head.ok_or(Refusal::InvalidScanoutId)?;
        // Left of the screen is a number below zero.
        let (x, y) = (x as i32, y as i32);
        match kind {
            command::MOVE_CURSOR => head.move_cursor(x, y),
            command::UPDATE_CURSOR if resource == 0 => head.set_cursor(x, y, None),
            command::UPDATE_CURSOR => {
                let image = self.cursor_image(resource, hot_x, hot_y)?;
                head.set_cursor(x, y, Some(image));
            }
            _ => return Err(Refusal::Unspecified),
        }
        Ok(())
    }

    /// Cursors are 64 pixels wide and high; what is larger is cut.
    fn cursor_image(&self, id: u32, hot_x: u32, hot_y: u32) -> Result<CursorImage, Refusal> {
        const MOST: u32 = 64;
        let Some(Kind::Image(image)) = self.resources.get(&id).map(|r| &r.kind) else {
            return Err(Refusal::InvalidResourceId);
        };
        let (width, height) = (image.width.min(MOST), image.height.min(MOST));
        let row = image.width as usize * PIXEL as usize;
        let rows = image.bytes.chunks_exact(row).take(height as usize);
        let pixels = rows.flat_map(|row| {
            let pixels = row.as_chunks::<4>().0.iter().take(width as usize);
            pixels.map(|bytes| image.format.to_argb(*bytes))
        });
        Ok(CursorImage {
            width,
            height,
            hot_x: hot_x.min(width - 1),
            hot_y: hot_y.min(height - 1),
            pixels: pixels.collect(),
        })
    }

    /// Refuses what would take more host memory than the user gave.
    fn afford(&self, config: &GpuConfig, more: u64) -> Result<(), Refusal> {
        let used: u64 = self.resources.values().map(Resource::cost).sum();
        if used.saturating_add(more) > config.max_hostmem {
            return Err(Refusal::OutOfMemory);
        }
        Ok(())
    }

    fn is_free(&self, id: u32) -> Result<(), Refusal> {
        if id == 0 || self.resources.contains_key(&id) {
            return Err(Refusal::InvalidResourceId);
        }
        Ok(())
    }

    fn create(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let [id, format, width, height] = body.words()?;
        self.is_free(id)?;
        let format = Format::from_number(format).ok_or(Refusal::InvalidParameter)?;
        if !(1..=LONGEST).contains(&width) || !(1..=LONGEST).contains(&height) {
            return Err(Refusal::InvalidParameter);
        }
        let mut image = Image {
            format,
            width,
            height,
            bytes: Vec::new(),
        };
        self.afford(wiring.config, image.size() + OVERHEAD)?;
        image.bytes = vec![0; image.size() as usize];
        let kind = Kind::Image(image);
        self.resources.insert(
            id,
            Resource {
                kind,
                backing: None,
            },
        );
        DONE
    }

    fn create_blob(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let [id, memory, flags, count] = body.words()?;
        let (_blob_id, size) = (body.long()?, body.long()?);
        self.is_free(id)?;
        if memory != spec::BLOB_MEM_GUEST || flags & !spec::BLOB_FLAGS != 0 || size == 0 {
            return Err(Refusal::InvalidParameter);
        }
        let backing = body.backing(count)?;
        if backing.length() < size {
            return Err(Refusal::InvalidParameter);
        }
        self.afford(wiring.config, OVERHEAD + backing.cost())?;
        let resource = Resource {
            kind: Kind::Blob(size),
            backing: Some(backing),
        };
        self.resources.insert(id, resource);
        DONE
    }

    fn unref(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let [id, _] = body.words()?;
        if self.resources.remove(&id).is_none() {
            return Err(Refusal::InvalidResourceId);
        }
        for (scanout, head) in self.scanouts.iter_mut().zip(wiring.heads) {
            if scanout.is_some_and(|s| s.resource == id) {
                *scanout = None;
                head.blank();
            }
        }
        DONE
    }

    fn attach(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let [id, count] = body.words()?;
        let resource = self.resources.get(&id);
        let resource = resource.ok_or(Refusal::InvalidResourceId)?;
        if resource.backing.is_some() {
            return Err(Refusal::Unspecified);
        }
        let backing = body.backing(count)?;
        self.afford(wiring.config, backing.cost())?;
        if let Some(resource) = self.resources.get_mut(&id) {
            resource.backing = Some(backing);
        }
        DONE
    }

    fn detach(&mut self, body: &mut Body) -> Answer {
        let [id, _] = body.words()?;
        let resource = self.resources.get_mut(&id);
        let backing = resource.and_then(|r| r.backing.take());
        backing.map_or(Err(Refusal::InvalidResourceId), |_| DONE)
    }

    /// From guest memory into the image (VIRTIO 5.7.6.8). What the list does not reach stays as it was.
    fn transfer(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let part = body.rectangle()?;
        let offset = body.long()?;
        let [id, _] = body.words()?;
        let resource = self.resources.get_mut(&id);
        let resource = resource.ok_or(Refusal::InvalidResourceId)?;
        let Kind::Image(image) = &mut resource.kind else {
            return Err(Refusal::InvalidParameter);
        };
        let backing = resource.backing.as_ref().ok_or(Refusal::Unspecified)?;
        if !part.is_within(image.width, image.height) {
            return Err(Refusal::InvalidParameter);
        }
        if part.width == 0 {
            return DONE;
        }
        let stride = u64::from(image.width) * PIXEL;
        let row = u64::from(part.width) * PIXEL;
        let start = u64::from(part.y) * stride + u64::from(part.x) * PIXEL;
        // Whole rows are one run of bytes.
        let (rows, length, step) = if row == stride {
            (1, row * u64::from(part.height), 0)
        } else {
            (part.height, row, stride)
        };
        for y in 0..u64::from(rows) {
            let to = (start + y * step) as usize;
            let from = offset.saturating_add(y * step);
            let target = &mut image.bytes[to..to + length as usize];
            if backing.read(wiring.dma, from, target) < target.len() {
                break;
            }
        }
        DONE
    }

    fn set_scanout(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let part = body.rectangle()?;
        let [scanout, id] = body.words()?;
        if id == 0 {
            return self.turn_off(wiring, scanout);
        }
        let size = match self.resources.get(&id).map(|r| &r.kind) {
            Some(Kind::Image(image)) => (image.width, image.height),
            _ => return Err(Refusal::InvalidResourceId),
        };
        self.show(
            wiring,
            scanout,
            size,
            Scanout {
                resource: id,
                part,
                layout: None,
            },
        )
    }

    fn set_scanout_blob(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let part = body.rectangle()?;
        let [scanout, id, width, height, format, _] = body.words()?;
        let [stride, _, _, _] = body.words()?;
        let [offset, _, _, _] = body.words()?;
        if id == 0 {
            return self.turn_off(wiring, scanout);
        }
        let size = match self.resources.get(&id).map(|r| &r.kind) {
            Some(Kind::Blob(size)) => *size,
            _ => return Err(Refusal::InvalidResourceId),
        };
        let format = Format::from_number(format).ok_or(Refusal::InvalidParameter)?;
        let layout = Layout {
            format,
            stride,
            offset,
        };
        let all = Rectangle {
            x: 0,
            y: 0,
            width,
            height,
        };
        let too_wide = u64::from(width) * PIXEL > stride.into();
        if too_wide || height == 0 || layout.reaches(&all) > size {
            return Err(Refusal::InvalidParameter);
        }
        self.show(
            wiring,
            scanout,
            (width, height),
            Scanout {
                resource: id,
                part,
                layout: Some(layout),
            },
        )
    }

    fn turn_off(&mut self, wiring: &Wiring, scanout: u32) -> Answer {
        let place = self.scanouts.get_mut(scanout as usize);
        let place = place.ok_or(Refusal::InvalidScanoutId)?;
        if place.take().is_some() {
            wiring.heads[scanout as usize].blank();
        }
        DONE
    }

    fn show(
        &mut self,
        wiring: &Wiring,
        number: u32,
        (width, height): (u32, u32),
        scanout: Scanout,
    ) -> Answer {
        let number = number as usize;
        if number >= self.scanouts.len() {
            return Err(Refusal::InvalidScanoutId);
        }
        let part = scanout.part;
        let sides = 1..=LARGEST;
        if !part.is_within(width, height)
            || !sides.contains(&part.width)
            || !sides.contains(&part.height)
        {
            return Err(Refusal::InvalidParameter);
        }
        // Consoles' copies have a limit of their own, as large as the resources'.
        let others = wiring
            .heads
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != number);
        let others: u64 = others.map(|(_, head)| head.cost()).sum();
        let own = u64::from(part.width) * u64::from(part.height) * PIXEL;
        if others + own > wiring.config.max_hostmem {
            return Err(Refusal::OutOfMemory);
        }
        self.scanouts[number] = Some(scanout);
        wiring.heads[number].set(part.width, part.height);
        self.redraw(wiring, number, part);
        DONE
    }

    fn flush(&mut self, wiring: &Wiring, body: &mut Body) -> Answer {
        let part = body.rectangle()?;
        let [id, _] = body.words()?;
        let resource = self.resources.get(&id);
        let resource = resource.ok_or(Refusal::InvalidResourceId)?;
        // A blob has no size of its own: what is outside of its scanouts is of no concern.
        if let Kind::Image(image) = &resource.kind
            && !part.is_within(image.width, image.height)
        {
            return Err(Refusal::InvalidParameter);
        }
        for number in 0..self.scanouts.len() {
            if self.scanouts[number].is_some_and(|s| s.resource == id) {
                self.redraw(wiring, number, part);
            }
        }
        DONE
    }

    /// Brings a part of a resource (in its pixels) to the consoles.
    pub fn redraw(&self, wiring: &Wiring, number: usize, part: Rectangle) {
        let Some(scanout) = self.scanouts.get(number).copied().flatten() else {
            return;
        };
        let (Some(resource), Some(common)) = (
            self.resources.get(&scanout.resource),
            part.intersection(&scanout.part),
        ) else {
            return;
        };
        let on_head = Rectangle {
            x: common.x - scanout.part.x,
            y: common.y - scanout.part.y,
            ..common
        };
        let head = &wiring.heads[number];
        let length = common.width as usize * PIXEL as usize;
        match (&resource.kind, scanout.layout) {
            (Kind::Image(image), _) => head.change(on_head, |y, pixels| {
                let row = u64::from(y + scanout.part.y) * u64::from(image.width);
                let at = (row + u64::from(common.x)) as usize * PIXEL as usize;
                image.format.to_rgb(&image.bytes[at..at + length], pixels);
            }),
            (Kind::Blob(_), Some(layout)) => {
                let Some(backing) = &resource.backing else {
                    return;
                };
                let mut bytes = vec![0; length];
                head.change(on_head, |y, pixels| {
                    let row = u64::from(y + scanout.part.y) * u64::from(layout.stride);
                    let at = u64::from(layout.offset) + row + u64::from(common.x) * PIXEL;
                    let n = backing.read(wiring.dma, at, &mut bytes);
                    layout.format.to_rgb(&bytes[..n], pixels);
                });
            }
            (Kind::Blob(_), None) => {}
        }
    }

    /// Whether a saved state could have come about with this configuration: nothing in it is believed.
    pub fn is_sound(&self, config: &GpuConfig, dma: &Dma) -> bool {
        let resources_fit = self.resources.values().all(|r| {
            let pixels = match &r.kind {
                Kind::Image(i) => i.width > 0 && i.height > 0 && i.bytes.len() as u64 == i.size(),
                Kind::Blob(size) => r.backing.as_ref().is_some_and(|b| b.length() >= *size),
            };
            let remade = r.backing.as_ref().map(|b| Backing::new(dma, b.segments()));
            pixels && remade.is_none_or(|made| made == r.backing)
        });
        let scanout_fits = |scanout: &Scanout| {
            let part = scanout.part;
            let sides = part.width.max(part.height) <= LARGEST && part.width.min(part.height) > 0;
            sides
                && match self.resources.get(&scanout.resource).map(|r| &r.kind) {
                    Some(Kind::Image(image)) => part.is_within(image.width, image.height),
                    Some(Kind::Blob(size)) => {
                        scanout.layout.is_some_and(|l| l.reaches(&part) <= *size)
                    }
                    None => false,
                }
        };
        resources_fit
            && self.afford(config, 0).is_ok()
            && self.scanouts.len() == config.max_outputs as usize
            && self.scanouts.iter().flatten().all(scanout_fits)
    }
}

/// `virtio_gpu_resp_display_info` behind its header: always sixteen entries.
fn display_info(wiring: &Wiring) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(spec::MAX_SCANOUTS * 24);
    for number in 0..spec::MAX_SCANOUTS {
        let wish = wiring.heads.get(number).map(|head| head.wish());
        let words = match wish {
            Some(w) => [0, 0, w.width, w.height, u32::from(w.enabled), 0],
            None => [0; 6],
        };
        bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    }
    bytes
}

fn get_edid(wiring: &Wiring, body: &mut Body) -> Answer {
    let [scanout, _] = body.words()?;
    let head = wiring.heads.get(scanout as usize);
    let wish = head.ok_or(Refusal::InvalidScanoutId)?.wish();
    let mut edid = edid(scanout, wish.width, wish.height);
    let mut bytes = (edid.len() as u32).to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    edid.resize(spec::EDID_SIZE, 0);
    bytes.extend(edid);
    Ok((ok::EDID, bytes))
}
