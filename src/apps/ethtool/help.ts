// What `netvsc ethtool -h` and `--version` print.
import { packageVersion } from '../package-info.js';

/** The version whose words, texts and exit codes these are. */
export const ETHTOOL_VERSION = '6.1';

export const versionText = (): string => `ethtool version ${ETHTOOL_VERSION} (netvsc ${packageVersion()})\n`;

export const helpText = (): string => `${versionText()}Usage:
        netvsc ethtool [ --netns NETNS ] [ FLAGS ]  DEVNAME	Display standard information about device
        ... -a|--show-pause DEVNAME	Show pause options
        ... -A|--pause DEVNAME	Set pause options (the device has none)
		[ autoneg on|off ]
		[ rx on|off ]
		[ tx on|off ]
        ... -c|--show-coalesce DEVNAME	Show coalesce options
        ... -C|--coalesce DEVNAME	Set coalesce options
		[ rx-usecs N ]
		[ rx-frames N ]
		[ tx-usecs N ]
		[ tx-frames N ]
        ... -g|--show-ring DEVNAME	Query RX/TX ring parameters (sections of receive and send buffer)
        ... -G|--set-ring DEVNAME	Set RX/TX ring parameters
		[ rx N ]
		[ tx N ]
        ... -k|--show-features|--show-offload DEVNAME	Get state of protocol offload and other features
        ... -K|--features|--offload DEVNAME	Set protocol offload and other features
		FEATURE on|off ...
        ... -i|--driver DEVNAME	Show driver information
        ... -d|--register-dump DEVNAME	Show the host's send indirection table
		[ raw on|off ]
        ... -S|--statistics DEVNAME	Show adapter statistics
        ... -n|-u|--show-nfc|--show-ntuple DEVNAME	Show Rx network flow classification options
		[ rx-flow-hash tcp4|udp4|tcp6|udp6 ]
        ... -N|-U|--config-nfc|--config-ntuple DEVNAME	Configure Rx network flow classification options
		rx-flow-hash tcp4|udp4|tcp6|udp6 sd|sdfn
        ... -T|--show-time-stamping DEVNAME	Show time stamping capabilities
        ... -x|--show-rxfh-indir|--show-rxfh DEVNAME	Show Rx flow hash indirection table and/or RSS hash key
        ... -X|--set-rxfh-indir|--rxfh DEVNAME	Set Rx flow hash indirection table and/or RSS hash key
		[ equal N | weight W0 W1 ... | default ]
		[ start N ]
		[ hkey %x:%x:%x:%x:%x:.... ]
		[ hfunc toeplitz ]
        ... -P|--show-permaddr DEVNAME	Show permanent hardware address
        ... -l|--show-channels DEVNAME	Query Channels
        ... -L|--set-channels DEVNAME	Set Channels
               [ combined N ]
        ... -h|--help 		Show this help
        ... --version 		Show version number

Other options of ethtool are understood, and answered as for a device that does not have what they ask for.

FLAGS:
	--debug MASK	taken, without effect
	--json		enable JSON output format (-a -c -g -k -l)
	-I|--include-statistics		taken; the device has no statistics of single commands

	--netns NETNS	the interface is in this network namespace (a name of ip netns, or a path)
`;
