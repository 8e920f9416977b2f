#!/bin/sh
# Sets up the services of a lab's services host: pebble (ACME) with its name server, and a Docker registry.
# Sent to the host on standard input; run again it changes nothing. Arguments: the host's addresses.
set -eu
pki=/etc/slipway-lab/pki
mkdir -p "$pki" /var/lib/slipway-lab
if [ ! -s "$pki/server.pem" ]; then
  names=DNS:acme,DNS:acme.lab.test,DNS:registry,DNS:registry.lab.test,DNS:localhost,IP:127.0.0.1
  for address in "$@"; do names=$names,IP:$address; done
  cd "$pki"
  openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -subj "/CN=Slipway lab services" \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.pem
  openssl req -quiet -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=acme.lab.test" -addext "subjectAltName=$names" \
    -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth -keyout server.key -out server.csr
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 3650 -copy_extensions copyall -out server.pem 2>/dev/null
  chown root:docker-registry server.key
  chmod 0640 server.key
fi

cat >/etc/slipway-lab/pebble.json <<EOF
{"pebble": {
  "listenAddress": ":14000", "managementListenAddress": ":15000",
  "certificate": "$pki/server.pem", "privateKey": "$pki/server.key",
  "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false,
  "domainBlocklist": ["blocked.lab.test"], "retryAfter": {"authz": -1, "order": -1}, "certificateValidityPeriod": 7776000
}}
EOF
# No Retry-After (negative): pebble writes every second one as a date, which Caddy 2.6 refuses; it then waits a minute.
cat >/etc/systemd/system/lab-dns.service <<EOF
[Unit]
Description=Name server of the lab's certificate authority
[Service]
ExecStart=/usr/bin/pebble-challtestsrv -dns01 :8053 -management 127.0.0.1:8055 -http01 "" -https01 "" -tlsalpn01 "" -doh "" -defaultIPv4 "" -defaultIPv6 ""
ExecStartPost=/usr/local/sbin/lab-names
Restart=on-failure
[Install]
WantedBy=multi-user.target
EOF
# No pauses and no nonces refused on purpose: these test clients, and ours is Caddy.
cat >/etc/systemd/system/lab-acme.service <<EOF
[Unit]
Description=The lab's certificate authority (ACME)
After=lab-dns.service
Wants=lab-dns.service
[Service]
Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
ExecStart=/usr/bin/pebble -config /etc/slipway-lab/pebble.json -dnsserver 127.0.0.1:8053
Restart=on-failure
[Install]
WantedBy=multi-user.target
EOF
# The names survive a restart of the name server in a file: "NAME IPV4 [IPV6]" a line.
cat >/usr/local/sbin/lab-names <<'EOF'
#!/bin/sh
set -eu
api=http://127.0.0.1:8055
curl -sf --retry 20 --retry-connrefused --retry-delay 0 --retry-max-time 10 -o /dev/null -d '{"ip":""}' $api/set-default-ipv4
[ -s /var/lib/slipway-lab/names ] || exit 0
while read -r name four six; do
  curl -sf -o /dev/null -d "{\"host\":\"$name\"}" $api/clear-a
  curl -sf -o /dev/null -d "{\"host\":\"$name\",\"addresses\":[\"$four\"]}" $api/add-a
  curl -sf -o /dev/null -d "{\"host\":\"$name\"}" $api/clear-aaaa
  [ -z "$six" ] || curl -sf -o /dev/null -d "{\"host\":\"$name\",\"addresses\":[\"$six\"]}" $api/add-aaaa
done </var/lib/slipway-lab/names
EOF
chmod 0755 /usr/local/sbin/lab-names
cat >/etc/docker/registry/config.yml <<EOF
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}, delete: {enabled: true}}
http: {addr: ":5000", tls: {certificate: $pki/server.pem, key: $pki/server.key}}
EOF
systemctl daemon-reload
systemctl enable --quiet --now lab-dns.service lab-acme.service docker-registry.service
for _ in $(seq 100); do
  if curl -sf --cacert "$pki/ca.pem" https://localhost:15000/roots/0 >"$pki/root.new"; then
    mv "$pki/root.new" "$pki/root.pem"
    exit 0
  fi
  sleep 0.1
done
echo "the certificate authority did not start: $(systemctl status lab-acme.service | tail -n 3)" >&2
exit 1
