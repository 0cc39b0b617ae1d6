package descriptors

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
)

// What Python reads can be read without anything else: every import comes before the file that needs it.
func TestSetIsWholeAndInOrder(t *testing.T) {
	set := Set()
	seen := map[string]bool{}
	for _, file := range set.GetFile() {
		for _, needed := range file.GetDependency() {
			if !seen[needed] {
				t.Errorf("%s comes before %s, which it imports", file.GetName(), needed)
			}
		}
		seen[file.GetName()] = true
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.FindDescriptorByName("WAWebProtobufsE2E.Message"); err != nil {
		t.Error(err)
	}
}

// The same program prints the same bytes each time.
func TestSetIsTheSameEachTime(t *testing.T) {
	if !proto.Equal(Set(), Set()) {
		t.Error("two sets of one program differ")
	}
}
