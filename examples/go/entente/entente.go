// Package entente is all that a program needs beside the generated clients: whom it calls as, repetitions that are safe, and the reason of a
// refusal. A Caller is given to any generated client: directoryv1.NewUserServiceClient(caller).
package entente

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What gRPC repeats by itself: calls that the server couldn't take or whose connection broke. Every mutation carries a request_id, so one
// that was done before the connection broke isn't done twice; it gets the first answer.
const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// A Caller makes calls as somebody, or as nobody.
type Caller struct {
	connection *grpc.ClientConn
	headers    metadata.MD
}

// Dial gives nobody at a server. Nothing is connected before the first call. The server speaks HTTP/2 without TLS; what ends TLS before it
// in production wants credentials.NewTLS here.
func Dial(target string) (*Caller, error) {
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return nil, err
	}
	return &Caller{connection: connection}, nil
}

// Close ends the connection, for everybody who calls over it.
func (c *Caller) Close() error {
	return c.connection.Close()
}

// As gives whoever has an access token, over the same connection.
func (c *Caller) As(accessToken string) *Caller {
	return &Caller{c.connection, metadata.Pairs("authorization", "Bearer "+accessToken)}
}

// OnBehalfOf gives an internal service that acts for a person, with the person's token beside its own, and says from where the person calls.
func (c *Caller) OnBehalfOf(accessToken, address string) *Caller {
	person := metadata.Pairs("entente-on-behalf", "Bearer "+accessToken, "entente-client-address", address)
	return &Caller{c.connection, metadata.Join(c.headers, person)}
}

// Invoke makes a call; generated clients use it. One that came too often is repeated once it may come, if its deadline leaves time for that.
func (c *Caller) Invoke(ctx context.Context, method string, request, answer any, options ...grpc.CallOption) error {
	if message, ok := request.(proto.Message); ok {
		setRequestID(message.ProtoReflect())
	}
	for {
		err := c.connection.Invoke(c.outgoing(ctx), method, request, answer, options...)
		if err == nil || !waited(ctx, err) {
			return err
		}
	}
}

// Waits as the error says, if the call came too often and there is time; else it is false.
func waited(ctx context.Context, err error) bool {
	refusal := RefusalOf(err)
	if refusal == nil || refusal.Code != codes.ResourceExhausted || refusal.Wait == 0 {
		return false
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < refusal.Wait {
		return false
	}
	timer := time.NewTimer(refusal.Wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// NewStream opens a stream; generated clients use it. Its deadline is that of the context, for the stream as a whole. Messages to the server
// have a request_id already: it stands for the run, and a sequence for the place in it. So a stream can be sent again too.
func (c *Caller) NewStream(
	ctx context.Context, description *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return c.connection.NewStream(c.outgoing(ctx), description, method, options...)
}

func (c *Caller) outgoing(ctx context.Context) context.Context {
	already, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewOutgoingContext(ctx, metadata.Join(already, c.headers))
}

// Gives a mutation that has none a request_id, so that its repetitions are safe (AIP-155).
func setRequestID(message protoreflect.Message) {
	field := message.Descriptor().Fields().ByName("request_id")
	if field != nil && !message.Has(field) {
		message.Set(field, protoreflect.ValueOfString(NewRequestID()))
	}
}

// NewRequestID gives a random UUID. A program that may itself be started again between two tries keeps it with its work.
func NewRequestID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err) // The system has no randomness: nothing is safe then.
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Replayed says whether an answer was given before, to the same request_id; header is what grpc.Header took from the call.
func Replayed(header metadata.MD) bool {
	values := header.Get("entente-replayed")
	return len(values) == 1 && values[0] == "true"
}
