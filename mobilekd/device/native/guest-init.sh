#!/bin/busybox sh
# The first process of the virtual machine: network, sshd and adbd, then the word that the host waits for.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run /tmp /var/run /etc/dropbear
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for option in $(cat /proc/cmdline); do
    case $option in mobilekd.data=*) data=${option#*=} ;; esac
done
mount -t tmpfs -o "mode=0771,size=${data:-50%}" tmpfs /data/local/tmp
while read -r module; do insmod "/lib/modules/$module"; done </etc/modules
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
hostname mobilekd

dropbearkey -t ed25519 -f /etc/dropbear/host_key >/run/host_key.txt 2>&1
(while :; do dropbear -F -E -s -r /etc/dropbear/host_key -p 22 -P /run/dropbear.pid; sleep 1; done) &
(while :; do ADBD_PORT=5555 adbd; sleep 1; done) >/run/adbd.log 2>&1 &
echo "mobilekd: host key $(grep ^ssh-ed25519 /run/host_key.txt)"
# 22 and 5555 in state LISTEN.
until grep -q ':0016 .* 0A ' /proc/net/tcp && cat /proc/net/tcp /proc/net/tcp6 | grep -q ':15B3 .* 0A '; do sleep 0.05; done
echo "mobilekd: ready"
while :; do sleep 3600; done
