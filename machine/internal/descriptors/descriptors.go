// Package descriptors tells what WhatsApp's messages look like on the wire.
//
// The product is written in Python and handles the same protobuf messages as the machine. It takes their classes from
// the machine that was built, not from files of its own, so the two can never differ. Set is what it reads: WhatsApp's
// schemas as whatsmeow has them, and everything they import, in one google.protobuf.FileDescriptorSet in which each
// file comes after those it imports.
package descriptors

import (
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/proto/waCert"
	"go.mau.fi/whatsmeow/proto/waCommon"
	"go.mau.fi/whatsmeow/proto/waCompanionReg"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waHistorySync"
	"go.mau.fi/whatsmeow/proto/waMmsRetry"
	"go.mau.fi/whatsmeow/proto/waServerSync"
	"go.mau.fi/whatsmeow/proto/waSyncAction"
	"go.mau.fi/whatsmeow/proto/waVnameCert"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/proto/waWeb"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

var wanted = []protoreflect.FileDescriptor{
	waAdv.File_waAdv_WAAdv_proto,
	waCert.File_waCert_WACert_proto,
	waCommon.File_waCommon_WACommon_proto,
	waCompanionReg.File_waCompanionReg_WACompanionReg_proto,
	waE2E.File_waE2E_WAWebProtobufsE2E_proto,
	waHistorySync.File_waHistorySync_WAWebProtobufsHistorySync_proto,
	waMmsRetry.File_waMmsRetry_WAMmsRetry_proto,
	waServerSync.File_waServerSync_WAWebProtobufsServerSync_proto,
	waSyncAction.File_waSyncAction_WAWebProtobufSyncAction_proto,
	waVnameCert.File_waVnameCert_WAWebProtobufsVnameCert_proto,
	waWa6.File_waWa6_WAWebProtobufsWa6_proto,
	waWeb.File_waWeb_WAWebProtobufsWeb_proto,
}

// Set returns the schemas, imports first.
func Set() *descriptorpb.FileDescriptorSet {
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range wanted {
		add(file)
	}
	return set
}
