#!/usr/bin/env bash
# Builds the guest image, a bootable qcow2, from Debian packages: the cloud kernel, busybox, dropbear, curl, parts of
# util-linux and e2fsprogs, and what stands in files/guest. Needs no root, no loop device and no mount.
#
#   devstack/build-guest.sh [-f] [-o FILE]
#
#   -f        build even if nothing changed
#   -o FILE   where the image goes (default: $KODIAK_CACHE/guest.qcow2; KODIAK_CACHE is ~/.cache/kodiak if unset)
#
# The image is rebuilt when this script or files/guest changed. Layout: MBR and syslinux; 1: FAT with kernel and
# initramfs; 2: ext4 root, grown by the guest to the size of the disk that it is given.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
files=$here/files/guest
cache=${KODIAK_CACHE:-$HOME/.cache/kodiak}
out=$cache/guest.qcow2
force=
while getopts 'fo:h' option; do
    case $option in
        f) force=yes ;;
        o) out=$OPTARG ;;
        *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done

# What the host needs to build the image: COMMAND:PACKAGE.
host_tools=(apt-get:apt dpkg-deb:dpkg cpio:cpio gcc:gcc mcopy:mtools mkfs.fat:dosfstools mke2fs:e2fsprogs
            sfdisk:fdisk syslinux:syslinux qemu-img:qemu-utils)
packages=(busybox-static dropbear-bin curl util-linux e2fsprogs dosfstools iputils-ping bash)

if [ -z "${KODIAK_GUEST_INNER:-}" ]; then
    PATH=$PATH:/usr/sbin:/sbin
    missing=()
    for tool in "${host_tools[@]}"; do command -v "${tool%%:*}" > /dev/null || missing+=("${tool##*:}"); done
    [ -f /usr/lib/syslinux/mbr/mbr.bin ] || missing+=(syslinux-common)
    if [ ${#missing[@]} -gt 0 ]; then
        echo "build-guest.sh: install first: apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    stamp=$(cd "$here" && { cat build-guest.sh; find files/guest -type f -perm /100 | sort
            find files/guest -type f -print0 | sort -z | xargs -0 cat; } | sha256sum)
    if [ -z "$force" ] && [ -f "$out" ] && [ "$(cat "$out.stamp" 2> /dev/null)" = "$stamp" ]; then
        echo "$out is up to date"
        exit 0
    fi
    mkdir -p "$cache/debs" "$(dirname "$out")"
    # Files in the image belong to root: whoever is not root is root in a user namespace of his own.
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(unshare --user --map-root-user)
    KODIAK_GUEST_INNER=$out KODIAK_CACHE=$cache "${as_root[@]}" "$0"
    echo "$stamp" > "$out.stamp"
    exit 0
fi

out=$KODIAK_GUEST_INNER
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d "${TMPDIR:-/tmp}/kodiak-guest.XXXXXX")
trap 'rm -rf "$work"' EXIT
pool=$work/pool
root=$work/root
boot=$work/boot
mkdir -p "$pool" "$root" "$boot"
step() { printf '%s\n' "$*"; }

# --- packages: fetched once, unpacked into a pool from which the image takes what it uses
step 'packages'
kernel=$(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
[ -n "$kernel" ] || { echo 'no linux-image-cloud-amd64 in the package lists: apt-get update first' >&2; exit 1; }
mapfile -t wanted < <(apt-cache depends --recurse --important "${packages[@]}" |
    grep -E '^(lib|zlib|busybox-static|dropbear-bin|curl|util-linux|e2fsprogs|dosfstools|iputils-ping|bash)' | sort -u)
wanted+=("$kernel")
# (Elsewhere than where the files are: apt-get leaves out what it finds in its folder.)
mapfile -t uris < <(cd "$work" && apt-get download --print-uris "${wanted[@]}" | awk '{print $2}')
absent=()
debs=()
for i in "${!uris[@]}"; do
    debs+=("$cache/debs/${uris[$i]}")
    [ -s "$cache/debs/${uris[$i]}" ] || absent+=("${uris[$i]%%_*}")
done
if [ ${#absent[@]} -gt 0 ]; then
    (cd "$cache/debs" && apt-get -q -o APT::Sandbox::User= download "${absent[@]}" > "$work/download.log" 2>&1) ||
        { tail -n 5 "$work/download.log" >&2; exit 1; }
fi
mapfile -t modules < <(sed '/^#/d;s#.*#./lib/modules/*/kernel/&#' "$files/modules")
for deb in "${debs[@]}"; do
    case ${deb##*/} in
        linux-image-*) dpkg-deb --fsys-tarfile "$deb" |
            tar -x -C "$pool" --wildcards './boot/vmlinuz-*' "${modules[@]}" ;;
        *) dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$pool" --keep-directory-symlink \
            --exclude './usr/share/doc*' --exclude './usr/share/man*' --exclude './usr/share/locale*' ;;
    esac
done

# --- the root file system
step 'root file system'
mkdir -p "$root"/{dev,proc,sys,run,tmp,mnt,root,home/cirros,var/lib/guest,var/log,var/tmp,usr/bin,usr/sbin,usr/lib,etc/dropbear}
for d in bin sbin lib lib64; do
    [ $d = lib64 ] && target=usr/lib || target=usr/$d
    ln -s $target "$root/$d"
done
ln -s /run "$root/var/run"
ln -s /proc/self/mounts "$root/etc/mtab"
cp "$pool/bin/busybox" "$root/usr/bin/busybox"
for applet in $("$pool/bin/busybox" --list); do
    case $applet in busybox|dpkg|dpkg-deb|rpm|rpm2cpio|mke2fs|mkdosfs|ping|ping6) continue ;; esac
    ln -s busybox "$root/usr/bin/$applet"
done
for applet in init getty poweroff reboot halt ip udhcpc ifconfig route; do ln -s ../bin/busybox "$root/usr/sbin/$applet"; done

# take FILE...: programs out of the pool, with the libraries that they load.
loader=$(echo "$pool"/lib64/ld-linux-x86-64.so.2)
libraries=$pool/lib/x86_64-linux-gnu:$pool/usr/lib/x86_64-linux-gnu
take() {
    local file library
    for file in "$@"; do
        [ -e "$pool/$file" ] || { echo "not in the packages: $file" >&2; exit 1; }
        case $file in */sbin/*|sbin/*) cp -L --remove-destination "$pool/$file" "$root/usr/sbin/" ;;
                      *) cp -L --remove-destination "$pool/$file" "$root/usr/bin/" ;; esac
        "$loader" --library-path "$libraries" --list "$pool/$file" |
            awk -v pool="$pool" 'index($3, pool) == 1 {print $3} /not found/ {exit 1}' > "$work/libs" ||
            { echo "a library of $file is missing" >&2; exit 1; }
        while read -r library; do
            [ -e "$root/usr/lib/${library##*/}" ] || cp -L "$library" "$root/usr/lib/"
        done < "$work/libs"
    done
}
take usr/sbin/dropbear usr/bin/dropbearkey usr/bin/dbclient usr/bin/curl bin/lsblk sbin/blkid usr/bin/resizepart bin/ping bin/bash \
    sbin/mkfs sbin/mkfs.fat sbin/mke2fs sbin/resize2fs sbin/e2fsck
cp -L "$loader" "$root/usr/lib/"
for fs in ext2 ext3 ext4; do ln -s mke2fs "$root/usr/sbin/mkfs.$fs"; done
ln -s mkfs.fat "$root/usr/sbin/mkfs.vfat"
ln -s ping "$root/usr/bin/ping6"
ln -s dbclient "$root/usr/bin/ssh"
cp "$pool/etc/mke2fs.conf" "$root/etc/"
# The guest's libraries lie in one folder, so that its loader finds them without a cache.
mkdir -p "$root/usr/lib/x86_64-linux-gnu"
rmdir "$root/usr/lib/x86_64-linux-gnu" && ln -s . "$root/usr/lib/x86_64-linux-gnu"
gcc -Os -s -Wall -Werror -o "$root/usr/bin/sudo" "$files/sudo.c"
cp -a --no-preserve=ownership "$files/rootfs/." "$root/"
chmod 755 "$root"; chmod 700 "$root/root"; chmod 600 "$root/etc/shadow"; chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 4755 "$root/usr/bin/sudo"

# --- kernel and initramfs
step 'kernel and initramfs'
initramfs=$work/initramfs
mkdir -p "$initramfs"/{bin,dev,proc,sys,newroot,lib/modules}
cp "$pool/bin/busybox" "$initramfs/bin/"
for applet in sh mount insmod seq findfs sleep switch_root; do ln -s busybox "$initramfs/bin/$applet"; done
install -m 755 "$files/initramfs-init" "$initramfs/init"
for module in $(sed '/^#/d' "$files/modules"); do
    cp "$pool"/lib/modules/*/kernel/"$module" "$initramfs/lib/modules/"
    echo "${module##*/}" >> "$initramfs/lib/modules/order"
done
(cd "$initramfs" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n > "$boot/initrd"
cp "$pool"/boot/vmlinuz-* "$boot/vmlinuz"
cat > "$boot/syslinux.cfg" <<'CFG'
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
 KERNEL /vmlinuz
 INITRD /initrd
 APPEND console=tty0 console=ttyS0,115200 net.ifnames=0 quiet loglevel=4 mitigations=off tsc=unstable random.trust_cpu=on panic=10
CFG

# --- the disk
step 'disk'
mib=1048576
boot_mib=$(($(du -sm --apparent-size "$boot" | cut -f1) + 4))
root_mib=$(($(du -sm "$root" | cut -f1) * 5 / 4 + 16))
fat=$work/fat
truncate -s ${boot_mib}M "$fat"
mkfs.fat -n BOOT "$fat" > /dev/null
mcopy -i "$fat" "$boot"/* ::
syslinux --install "$fat"
ext4=$work/ext4
truncate -s ${root_mib}M "$ext4"
mke2fs -q -t ext4 -b 4096 -J size=4 -m 0 -O '^metadata_csum,^64bit' -E lazy_itable_init=0 -L kodiak-root -d "$root" "$ext4"
disk=$work/disk
truncate -s $((1 + boot_mib + root_mib))M "$disk"
printf 'label: dos\nstart=1MiB, size=%dMiB, type=c, bootable\nstart=%dMiB, type=83\n' $boot_mib $((1 + boot_mib)) |
    sfdisk -q "$disk"
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$fat" of="$disk" bs=$mib seek=1 conv=notrunc,sparse status=none
dd if="$ext4" of="$disk" bs=$mib seek=$((1 + boot_mib)) conv=notrunc,sparse status=none
qemu-img convert -c -O qcow2 "$disk" "$out.part"
mv "$out.part" "$out"
step "$out: $(($(stat -c %s "$out") / mib)) MiB, disk of $((1 + boot_mib + root_mib)) MiB"
