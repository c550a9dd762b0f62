// Package doctor tells what a host lacks for running containers, and what to do about it. Collect asks the kernel by
// trying (a bridge is made in a namespace of its own, an overlay is mounted where no one sees it), never by reading a
// kernel configuration; Evaluate turns the facts into findings by pure rules. Nothing on the host is changed. Every
// code is in observe/health. It must not repair anything and must not know the engine.
package doctor
