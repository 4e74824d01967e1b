#!/usr/bin/env bash
# Installs what tests/manifests needs and a fresh Debian machine lacks: kustomize 5 (kubectl 1.27 and newer has it built
# in) and npm. Debian has kustomize since 13; on 12 its package is unpacked into build/tools, from the mirror that apt
# is configured with.
set -euo pipefail
cd "$(dirname "$0")/../.."

apt_install() {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@"
}

if ! command -v npm >/dev/null; then
  apt_install nodejs npm
fi

if command -v kustomize >/dev/null || [ -x build/tools/usr/bin/kustomize ] ||
  kubectl version --client 2>/dev/null | grep -q 'Kustomize Version: v[5-9]'; then
  exit 0
fi
apt-get update -qq
if apt-cache show kustomize >/dev/null 2>&1; then
  apt_install kustomize
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/sources" "$work/lists/partial" "$work/archives/partial" build/tools
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian$' | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror trixie main" >"$work/sources/trixie.list"
trixie=(-o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$work/sources" -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work" -o "APT::Sandbox::User=root")
apt-get "${trixie[@]}" update -qq
(cd "$work" && apt-get "${trixie[@]}" download -qq kustomize)
dpkg-deb --extract "$work"/kustomize_*.deb build/tools
build/tools/usr/bin/kustomize version
