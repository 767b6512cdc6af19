#!/bin/busybox sh
# shellcheck shell=dash disable=SC2154
# The only program of a demo guest: fills its memory as the kernel command line says, says READY, and stays.
# (What stands there as name=value, and is nothing to the kernel, is in our environment.)
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /memory
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
hostname "$guest_name"
if [ "$fw_cfg" = yes ]; then insmod /qemu_fw_cfg.ko; fi
mount -t tmpfs -o size=95% tmpfs /memory

# Text in ever larger pieces: under software emulation many small writes, or many processes, would be slow.
yes "$guest_name: the quick brown fox jumps over the lazy dog, and this guest remembers it." | head -c 1m > /memory/text
there=1
while [ "$there" -lt "$text_mib" ]; do
  more=$((text_mib - there < there ? text_mib - there : there))
  dd if=/memory/text of=/memory/text bs=1M count="$more" seek="$there" conv=notrunc 2> /dev/null
  there=$((there + more))
done
dd if=/dev/urandom of=/memory/random bs=1M count="$random_mib" 2> /dev/null

if [ -x /busy ]; then /busy "$guest_name" "$rewrites_mib" "$counts"; fi

# What runs here now, for who reads it out of our memory.
for task in /proc/[0-9]*; do
  read -r name < "$task/comm" && echo "TASK ${task#/proc/} $name"
done

echo "READY $guest_name"
while true; do sleep 3600; done
