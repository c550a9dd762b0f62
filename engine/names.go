package engine

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// The words of made-up names: manners, and animals of the sea and its shores.
var (
	manners = strings.Fields(`able agile amber ample aware azure bold brave breezy bright brisk calm candid cheery clever
		coral cosy crisp curious daring deft dreamy eager early easy fair fast fine fleet fond frank free fresh gentle
		glad golden grand happy hardy hearty honest humble jaunty jolly keen kind lively lucid lucky mellow merry mighty
		mild neat nimble noble patient placid plucky polite prompt proud quick quiet ready robust rosy salty serene sharp
		silver sleek smart snug sober solid sound spry steady still sunny sure swift tender tidy tranquil true upbeat
		valiant vivid warm wavy wise witty young zesty`)
	animals = strings.Fields(`albatross anchovy avocet barnacle barracuda bass beluga bream carp catfish clam cod
		conch coot cormorant crab cuttlefish dolphin dory dugong dunlin eel egret eider flounder fulmar gannet goby grebe
		grouper guillemot gull gurnard haddock hake halibut harrier heron herring kingfisher kittiwake krill lamprey
		limpet ling loach lobster loon mackerel manatee manta marlin minnow moray mullet mussel narwhal nautilus octopus
		orca osprey otter oyster pelican perch petrel pike pilchard pipefish plaice plover pollock porpoise prawn puffin
		ray redfish remora roach salmon sanderling sardine scallop seahorse seal shad shrimp skate skua smelt snapper
		sole sprat squid starfish stingray stork sturgeon sunfish tarpon tern tetra trout tuna turbot turnstone turtle
		urchin walrus whale whelk whiting wrasse`)
)

// randomName is "brave_heron"; when that is taken again and again, "brave_heron7".
func randomName(attempt int) string {
	name := manners[rand.IntN(len(manners))] + "_" + animals[rand.IntN(len(animals))]
	if attempt > 0 {
		name += strconv.Itoa(rand.IntN(10 * attempt * attempt))
	}
	return name
}
