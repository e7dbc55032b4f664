# shellcheck shell=sh
# SPDX-License-Identifier: BSD-2-Clause
# To be sourced: an apt with lists of its own, so that nothing on this computer
# changes and every file is verified, and Debian's mirror that this computer uses.

# apt_mirror: its address, or nothing
apt_mirror() {
	# shellcheck disable=SC2016 # the dollar sign is apt's
	apt-get indextargets --format '$(SITE)' 'Created-By: Packages' \
	    'Origin: Debian' 'Label: Debian' | head -n 1
}

# apt_error FILE: the reason that it gave in this output
apt_error() {
	sed -n 's/^E: \(Failed to fetch \)\{0,1\}//p' "$1" | head -n 1
}

# apt_own DIRECTORY MIRROR RELEASE ARCHITECTURE...: have apt use the directory
# only, before its first update, for this release and foremost this architecture
apt_own() {
	apt=$1
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	: > "$apt/status"
	keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	echo "deb [signed-by=$keyring] $2 $3 main" > "$apt/sources.list"
	shift 3
	# All else, a proxy for one, is as the computer has it.
	cat > "$apt/apt.conf" <<-END
		APT::Architecture "$1";
		APT::Architectures { $(printf '"%s"; ' "$@")};
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::Retries "3";
		Dir::State "$apt";
		Dir::State::status "$apt/status";
		Dir::Cache "$apt/cache";
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
	END
	export APT_CONFIG="$apt/apt.conf"
}

# again COMMAND...: try it three times before it is given up
again() {
	"$@" || { sleep 2; "$@"; } || { sleep 4; "$@"; }
}
