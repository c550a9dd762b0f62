// Package chaos breaks things at the worst moments (every fail point, kills at random, full disks, damaged records) and
// checks from outside that nothing is lost, nothing half-made stays and everything works again. It must not reach into
// rooms.
package chaos
