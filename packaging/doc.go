// Package packaging makes what a release has beside the programs: manual pages, shell completion, the bill of materials and the
// licences of the modules that are linked; and checks what was made. It must not build the programs; scripts/dist does.
package packaging
