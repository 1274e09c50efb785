#!/usr/bin/env bash
# Small files of each kind to begin fuzzing from, made by other programs: without them a fuzzer spends its time on magic numbers.
#
#     fuzz/seeds.sh        # into fuzz/corpus/TARGET, beside what is there
#
# Kinds whose program is missing are left out.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in disc disk el_torito fat hive hive_log inf inspect pe qcow2 udf vhd vhdx vmdk wim wim_codec zstd_pack; do
    mkdir -p "corpus/$target"
done

# A little tree and a little disk.
mkdir -p "$work/tree/folder/inner"
for n in 1 2 3; do
    seq "$n" 400 > "$work/tree/folder/file $n.txt"
done
head -c 3000 /dev/urandom > "$work/tree/folder/inner/noise"
seq 1 4000 > "$work/disk"
truncate -s 64K "$work/disk"

image() { # target, name, qemu-img's options
    local target=$1 name=$2
    shift 2
    if qemu-img convert -q -f raw "$@" "$work/disk" "$work/$name" 2> /dev/null; then
        cp "$work/$name" "corpus/$target/"
        cp "$work/$name" "corpus/inspect/"
    fi
}
if command -v qemu-img > /dev/null; then
    image qcow2 plain.qcow2 -O qcow2 -o cluster_size=512
    image qcow2 v2.qcow2 -O qcow2 -o cluster_size=512,compat=0.10
    image qcow2 bits1.qcow2 -O qcow2 -o cluster_size=512,refcount_bits=1
    image qcow2 zlib.qcow2 -c -O qcow2 -o cluster_size=4096
    image qcow2 zstd.qcow2 -c -O qcow2 -o cluster_size=4096,compression_type=zstd
    cp "$work/plain.qcow2" "$work/snapshot.qcow2"
    qemu-img snapshot -c one "$work/snapshot.qcow2" && cp "$work/snapshot.qcow2" corpus/qcow2/
    image vmdk sparse.vmdk -O vmdk
    image vmdk stream.vmdk -O vmdk -o subformat=streamOptimized
    image vhd fixed.vhd -O vpc -o subformat=fixed
    # Head and foot: the block between is long.
    qemu-img convert -q -f raw -O vpc "$work/disk" "$work/dynamic.vhd" &&
        (head -c 2K "$work/dynamic.vhd"; tail -c 512 "$work/dynamic.vhd") > corpus/vhd/dynamic.vhd
    if qemu-img convert -q -f raw -O vhdx "$work/disk" "$work/disk.vhdx"; then
        # Only what its target has of it (fuzz_targets/vhdx.rs).
        for at in 0 64 128 192 256 1024 2048 3072 3136; do
            dd if="$work/disk.vhdx" bs=1K skip="$at" count=2 status=none
        done > corpus/vhdx/disk.parts
    fi
fi
if command -v genisoimage > /dev/null; then
    options=(-quiet -no-pad -J -R -udf -b "file 1.txt" -no-emul-boot)
    genisoimage "${options[@]}" -o "$work/a.iso" "$work/tree/folder" 2> /dev/null
    for target in disc el_torito inspect; do
        cp "$work/a.iso" "corpus/$target/"
    done
    # The sectors of a smaller one that are not zeroes, each behind its number (fuzz_targets/udf.rs).
    mkdir -p "$work/small/folder"
    seq 1 300 > "$work/small/folder/file.txt"
    echo text > "$work/small/a file of a long name.txt"
    genisoimage -quiet -no-pad -udf -o "$work/small.iso" "$work/small" 2> /dev/null
    head -c 2048 /dev/zero > "$work/zeroes"
    for ((n = 32; n * 2048 < $(stat -c %s "$work/small.iso"); n++)); do
        dd if="$work/small.iso" bs=2048 skip="$n" count=1 status=none > "$work/sector"
        cmp -s "$work/sector" "$work/zeroes" && continue
        printf '%b' "$(printf '\\x%02x\\x%02x' $((n & 255)) $((n >> 8)))"
        cat "$work/sector"
    done > corpus/udf/small.sectors
fi
if command -v mkfs.vfat > /dev/null; then
    for bits in 12 16 32; do
        size=$((bits == 12 ? 64 : bits == 16 ? 2200 : 33000))
        truncate -s "${size}K" "$work/fat$bits"
        mkfs.vfat -F "$bits" -s 1 "$work/fat$bits" > /dev/null 2>&1 || continue
        command -v mcopy > /dev/null && mcopy -s -i "$work/fat$bits" "$work/tree/folder" ::/
        head -c 128K "$work/fat$bits" > "corpus/fat/fat$bits"
    done
elif command -v mformat > /dev/null; then
    for bits in 12 16 32; do
        sectors=$((bits == 12 ? 320 : bits == 16 ? 8800 : 66600))
        truncate -s "$((sectors / 2))K" "$work/fat$bits"
        mformat -i "$work/fat$bits" -T "$sectors" -c 1 $([ "$bits" = 32 ] && echo -F) :: || continue
        mcopy -s -i "$work/fat$bits" "$work/tree/folder" ::/
        head -c 128K "$work/fat$bits" > "corpus/fat/fat$bits"
    done
fi
if command -v wimlib-imagex > /dev/null; then
    for kind in none XPRESS LZX LZMS; do
        wimlib-imagex capture "$work/tree" "$work/$kind.wim" --compress=$kind --no-acls > /dev/null 2>&1 || continue
        cp "$work/$kind.wim" corpus/wim/
        cp "$work/$kind.wim" corpus/inspect/
    done
    wimlib-imagex capture "$work/tree" "$work/solid.wim" --compress=LZMS --solid --no-acls > /dev/null 2>&1 &&
        cp "$work/solid.wim" corpus/wim/
    # A chunk of each compression, behind its kind and how much comes out of it, less one, in 128 bytes.
    mkdir "$work/one"
    head -c 32K "$0" > "$work/one/file"
    while [ "$(stat -c %s "$work/one/file")" -lt 32768 ]; do
        seq 1 $((RANDOM % 500)) | cat - "$0" >> "$work/one/file"
    done
    truncate -s 32K "$work/one/file"
    number=0
    for kind in XPRESS LZX LZMS; do
        wimlib-imagex capture "$work/one" "$work/one.wim" --compress=$kind --chunk-size=32K --no-acls > /dev/null 2>&1 || continue
        size=$(wimlib-imagex info --blobs "$work/one.wim" | awk '/^Compressed size/ { size = $4 } /^Offset.* 208 / { print size }')
        (printf "\\x0$number\\xff"; tail -c +209 "$work/one.wim" | head -c "$size") > "corpus/wim_codec/$kind"
        number=$((number + 1))
        rm "$work/one.wim"
    done
fi
seq 1 900 | (printf '\005\011'; cat) > corpus/zstd_pack/lines
(printf '\010\003'; head -c 700 /dev/urandom; seq 1 300; printf 'again %.0s' {1..200}) > corpus/zstd_pack/mixed
# How the image is and what is packed of it, then steps of six bytes.
printf '\003\125\000\010\100\000\003\000\007\000\100\000\003\000\006\000\000\000\000\000\004\010\200\001\010\000' > corpus/disk/plain
printf '\013\377\000\020\000\001\002\000\005\000\000\000\000\000\003\010\000\001\001\000\007\000\000\000\377\010' > corpus/disk/direct
printf '[Version]\r\nSignature="$Windows NT$"\r\nClass=Net\r\nDriverVer=01/02/2024,1.2.3.4\r\nCatalogFile=a.cat\r\n[Manufacturer]\r\n%%M%%=M,NTARM64.10.0\r\n[M.NTARM64.10.0]\r\n%%D%%=I,PCI\\VEN_1AF4&DEV_1000\r\n[Strings]\r\nM="Maker"\r\nD="Device"\r\n' \
    > corpus/inf/a.inf
for file in "${LOADERS:-/usr/lib/systemd/boot/efi}"/*.efi /usr/share/efi/*/*.efi; do
    [ -f "$file" ] && head -c 8K "$file" > "corpus/pe/$(basename "$file")"
done
for hive in "${HIVES:-/usr/share/hivex}"/*; do
    [ -f "$hive" ] && [ "$(head -c 4 "$hive")" = regf ] && cp "$hive" corpus/hive/ || continue
    # A log that has the first page of its bins.
    {
        head -c 28 "$hive"
        printf '\6\0\0\0'
        tail -c +33 "$hive" | head -c 480
        printf 'HvLE\0\22\0\0\0\0\0\0\1\0\0\0\0\20\0\0\1\0\0\0'
        head -c 20 /dev/zero
        printf '\0\20\0\0'
        tail -c +4097 "$hive" | head -c 4096
        head -c 464 /dev/zero
    } > "corpus/hive_log/$(basename "$hive")"
done
for target in corpus/*; do
    echo "$target: $(find "$target" -type f | wc -l) files"
done
