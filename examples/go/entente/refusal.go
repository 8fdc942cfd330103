package entente

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
)

// A Refusal is why a call failed. Programs decide by Code and Reason, never by text.
type Refusal struct {
	Code       codes.Code
	Reason     accessv1.ErrorReason
	Metadata   map[string]string                       // What the reason speaks of, such as "permission".
	Violations []*errdetails.BadRequest_FieldViolation // What is wrong with the request, field by field; the descriptions are for people.
	Wait       time.Duration                           // When it may be tried again.
	Text       string                                  // For people, in the language asked for.
}

// Fields gives the fields that are wrong, one for each violation.
func (r *Refusal) Fields() []string {
	fields := make([]string, len(r.Violations))
	for i, violation := range r.Violations {
		fields[i] = violation.Field
	}
	return fields
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("%s %s: %s", r.Code, strings.TrimPrefix(r.Reason.String(), "ERROR_REASON_"), r.Text)
	if len(r.Violations) == 0 {
		return text
	}
	wrong := make([]string, len(r.Violations))
	for i, violation := range r.Violations {
		wrong[i] = violation.Field + " " + violation.Description
	}
	return text + " (" + strings.Join(wrong, "; ") + ")"
}

// RefusalOf reads a call's error: google.rpc.ErrorInfo is always among its details, the others where they fit. It gives nil for an error that
// isn't this service's, such as a broken connection.
func RefusalOf(err error) *Refusal {
	refused := status.Convert(err)
	refusal := &Refusal{Code: refused.Code()}
	known := false
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == "entente" {
				known = true
				// A reason that is newer than this program is UNSPECIFIED to it; the code still says what to do.
				refusal.Reason = accessv1.ErrorReason(accessv1.ErrorReason_value["ERROR_REASON_"+detail.Reason])
				refusal.Metadata = detail.Metadata
			}
		case *errdetails.BadRequest:
			refusal.Violations = detail.FieldViolations
		case *errdetails.RetryInfo:
			refusal.Wait = detail.RetryDelay.AsDuration()
		case *errdetails.LocalizedMessage:
			refusal.Text = detail.Message
		}
	}
	if !known {
		return nil
	}
	return refusal
}
