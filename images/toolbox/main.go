// Command toolbox is the program of the built-in image "toolbox".
package main

import "fmt"

func main() { fmt.Println("sh") }
