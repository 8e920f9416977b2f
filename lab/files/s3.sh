#!/bin/sh
# Sets up the S3 server of a lab's S3 host: Ceph's object gateway over one store in memory, TLS with an own authority.
# Sent to the host on standard input; run again it changes nothing. Arguments: the addresses it is reached at.
# Whatever is in the store is gone when the host stops; certificates and keys stay.
set -eu
pki=/etc/slipway-lab/pki
mkdir -p "$pki"
if [ ! -s "$pki/server.pem" ]; then
  names=DNS:s3,DNS:s3.lab.test,DNS:localhost,IP:127.0.0.1
  for address in "$@"; do names=$names,IP:$address; done
  cd "$pki"
  openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -subj "/CN=Slipway lab S3" \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.pem
  openssl req -quiet -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=s3.lab.test" -addext "subjectAltName=$names" \
    -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth -keyout server.key -out server.csr
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 3650 -copy_extensions copyall -out server.pem 2>/dev/null
fi

# One of everything, no authentication inside (it never leaves this host). Without "crc" the gateway hangs. The short
# proposals make the pools appear in a second or two instead of one after the other in ten.
cat >/etc/slipway-lab/ceph.conf <<EOF
[global]
fsid = 7b1b1c1e-0000-4000-8000-000000000053
mon host = v1:127.0.0.1:6789
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 17179869184
mon data = /run/lab-s3/mon
osd data = /run/lab-s3/osd
run dir = /run/lab-s3
admin socket =
paxos propose interval = 0.05
paxos min wait = 0.01
log file =
mon cluster log file =
err to stderr = true
[client]
ms mon client mode = crc
[client.rgw]
rgw frontends = beast ssl_port=443 ssl_certificate=$pki/server.pem ssl_private_key=$pki/server.key
rgw data = /run/lab-s3
rgw enable apis = s3, admin
EOF
cat >/usr/local/sbin/lab-s3-run <<'EOF'
#!/bin/sh
# Makes an empty store in memory and serves it; everything it starts ends with its unit.
set -eu
exec 2>/run/lab-s3.log
export CEPH_CONF=/etc/slipway-lab/ceph.conf
id=7b1b1c1e-0000-4000-8000-000000000054
rm -rf /run/lab-s3/mon /run/lab-s3/osd
mkdir -p /run/lab-s3/mon /run/lab-s3/osd
monmaptool --create --clobber --fsid 7b1b1c1e-0000-4000-8000-000000000053 --addv a v1:127.0.0.1:6789 /run/lab-s3/monmap >/dev/null
ceph-mon --mkfs -i a --monmap /run/lab-s3/monmap
ceph-mon -f -i a &
ceph-osd --mkfs -i 0 --osd-uuid $id
# A monitor that has only just begun answers EPERM for a moment.
tries=0
until timeout 30 ceph osd create $id 0 >/dev/null; do
  tries=$((tries + 1))
  [ "$tries" -lt 40 ] || exit 1
  sleep 0.25
done
# Now and then it speaks before it knows the cluster's id, is refused ("wrong fsid") and ends: then once more.
while ! ceph-osd -f -i 0; do sleep 0.1; done &
exec radosgw -f -n client.rgw
EOF
cat >/etc/systemd/system/lab-s3.service <<EOF
[Unit]
Description=The lab's S3 server
[Service]
RuntimeDirectory=lab-s3
ExecStart=/usr/local/sbin/lab-s3-run
ExecStartPost=/usr/local/sbin/lab-s3-keys
TimeoutStartSec=60
KillSignal=SIGKILL
[Install]
WantedBy=multi-user.target
EOF
chmod 0755 /usr/local/sbin/lab-s3-run /usr/local/sbin/lab-s3-keys
systemctl daemon-reload
if ! systemctl enable --quiet --now lab-s3.service; then
  echo "the S3 server did not start: $(journalctl -u lab-s3 -t lab-s3-keys -n 3 --no-pager -o cat; tail -n 3 /run/lab-s3.log)" >&2
  exit 1
fi
